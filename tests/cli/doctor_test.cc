// `lutra doctor` over fake machines and files.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/bench/speed_text.h"
#include "cli/doctor/findings.h"
#include "kernels/base/error.h"
#include "models/synthetic.h"
#include "models/work.h"
#include "tests/test_util.h"

namespace lutra::doctor {
namespace {

namespace fs = std::filesystem;

// A fake / that goes with the test.
struct Root {
  Root()
      : path((fs::temp_directory_path() / ("lutra_doctor_test_" + std::to_string(::getpid())))
                 .string()) {
    fs::create_directories(path);
  }
  ~Root() { fs::remove_all(path); }
  Root& Write(const std::string& name, const std::string& text) {
    fs::create_directories(fs::path(path + name).parent_path());
    std::ofstream(path + name) << text << "\n";
    return *this;
  }
  Root& Cpus(int n, const std::string& file = "", const std::string& text = "") {
    for (int i = 0; i < n; ++i) {
      const std::string cpu = "/sys/devices/system/cpu/cpu" + std::to_string(i);
      Write(cpu + "/topology/thread_siblings_list", std::to_string(i));
      if (!file.empty()) Write(cpu + file, text);
    }
    return *this;
  }
  std::string path;
};

const CpuFacts kGoodCpu = {{"scalar", "sse4", "avx2"}, "avx2", false, false};

// All findings of a topic, one line each: "verdict: text -> fix".
std::string Topic(const std::vector<Finding>& findings, const std::string& topic) {
  std::string out;
  for (const Finding& f : findings) {
    if (f.topic == topic)
      out += std::string(VerdictName(f.verdict)) + ": " + f.text +
             (f.fix.empty() ? "" : " -> " + f.fix) + "\n";
  }
  return out;
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("A healthy machine has nothing but ok findings") {
  Root root;
  root.Cpus(4, "/cpufreq/scaling_governor", "performance")
      .Write("/proc/cpuinfo", "processor : 0\nmodel name\t: Fine CPU 1234")
      .Write("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 12582912 kB")
      .Write("/proc/loadavg", "0.10 0.20 0.30 1/100 1234")
      .Write("/sys/devices/system/node/node0/cpulist", "0-3")
      .Write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
  const auto findings = MachineFindings(root.path, "0-3", kGoodCpu);
  for (const Finding& f : findings) {
    INFO(f.topic, " ", f.text);
    CHECK(f.verdict == Verdict::kOk);
    CHECK(f.fix.empty());
  }
  CHECK(Topic(findings, "CPU") == "ok: Fine CPU 1234\n");
  CHECK(Has(Topic(findings, "SIMD"), "avx2 in use; this CPU can run: scalar sse4 avx2"));
  CHECK(Has(Topic(findings, "threads"), "4 threads: 4 physical cores"));
  CHECK(Has(Topic(findings, "memory"), "12.0 GiB available of 16.0 GiB"));
  CHECK(Has(Topic(findings, "huge pages"), "madvise"));
  CHECK(Has(Topic(findings, "load"), "0.10 runnable threads on 4 CPUs"));
}

TEST_CASE("What slows a machine down is found, each with its fix") {
  Root root;
  root.Cpus(8, "/cpufreq/scaling_governor", "ondemand")
      .Write("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 1048576 kB")
      .Write("/proc/loadavg", "6.50 5 4 1/100 1234")
      .Write("/sys/devices/system/node/node0/cpulist", "0-3")
      .Write("/sys/devices/system/node/node1/cpulist", "4-7")
      .Write("/proc/sys/kernel/numa_balancing", "1")
      .Write("/proc/sys/vm/overcommit_memory", "2")
      .Write("/sys/devices/system/cpu/cpufreq/boost", "0")
      .Write("/proc/self/cgroup", "0::/box")
      .Write("/sys/fs/cgroup/box/cpu.max", "300000 100000")
      .Write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
  const CpuFacts cpu = {{"scalar", "avx2", "avx3_dl"}, "avx2", true, false};
  const auto findings = MachineFindings(root.path, "0-7", cpu);
  CHECK(Has(Topic(findings, "SIMD"),
            "warning: capped to avx2; this CPU can run: scalar avx2 avx3_dl -> unset LUTRA_SIMD"));
  CHECK(Has(Topic(findings, "AMX"), "warning: the CPU has AMX, but"));
  CHECK(Has(Topic(findings, "threads"),
            "warning: 3 threads: 8 physical cores, cut by a cgroup quota of 3 CPUs -> raise"));
  CHECK(Has(Topic(findings, "NUMA"), "warning: 2 memory nodes"));
  CHECK(Has(Topic(findings, "NUMA"), "echo 0 | sudo tee /proc/sys/kernel/numa_balancing"));
  CHECK(Has(Topic(findings, "huge pages"), "-> echo madvise"));
  CHECK(
      Has(Topic(findings, "clock"), "governor ondemand: the clock may stay low -> sudo cpupower"));
  CHECK(Has(Topic(findings, "clock"), "turbo is off"));
  CHECK(Has(Topic(findings, "memory"), "warning: 1.0 GiB available of 16.0 GiB"));
  CHECK(Has(Topic(findings, "memory"), "strict overcommit"));
  CHECK(Has(Topic(findings, "load"), "warning: 6.50 runnable threads on 8 CPUs"));
}

TEST_CASE(
    "Less common machines: baseline CPU, AMX allowed, hyperthreads, power-saving drivers, nothing "
    "known") {
  CHECK(Has(
      Topic(MachineFindings("/no/such/root", "0", {{"scalar"}, "scalar", false, false}), "SIMD"),
      "warning: only the baseline"));
  CHECK(Topic(MachineFindings("/no/such/root", "0", {{"scalar", "avx3_dl"}, "avx3_dl", true, true}),
              "AMX") == "ok: available and allowed\n");
  const auto unknown = MachineFindings("/no/such/root", "0,1", kGoodCpu);
  CHECK(Topic(unknown, "CPU") == "ok: unknown\n");
  CHECK(Has(Topic(unknown, "memory"), "note: the system does not say"));
  CHECK(Has(Topic(unknown, "huge pages"), "note: the kernel does not offer"));
  CHECK(Topic(unknown, "AMX").empty());
  for (const Finding& f : unknown) CHECK(f.verdict != Verdict::kProblem);

  Root root;
  root.Cpus(2, "/cpufreq/scaling_governor", "powersave")
      .Cpus(2, "/cpufreq/scaling_driver", "intel_pstate");
  root.Cpus(2, "/cpufreq/energy_performance_preference", "balance_performance");
  for (int i = 0; i < 2; ++i) {
    root.Write("/sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/thread_siblings_list",
               "0-1");
  }
  auto findings = MachineFindings(root.path, "0-1", kGoodCpu);
  CHECK(Has(Topic(findings, "clock"), "ok: governor powersave, preference balance_performance"));
  CHECK(Has(Topic(findings, "threads"), "ok: 1 thread: 1 physical core of 2 CPUs allowed"));
  CHECK(Has(Topic(findings, "threads"), "note: hyperthreads"));
  root.Cpus(2, "/cpufreq/energy_performance_preference", "power");
  CHECK(Has(Topic(MachineFindings(root.path, "0-1", kGoodCpu), "clock"),
            "warning: governor powersave, preference power"));
}

TEST_CASE(
    "A model that is well: its types, tokenizer and what fits; one without a template says so") {
  ThreadPool pool(1);
  const GgufFile file =
      BuildSynthetic(ParseSynthetic("layers=2,embd=256,ff=512,vocab=400,ctx=20000:IQ4_K"), pool, 0);
  const auto findings = ModelFindings(file, uint64_t{8} << 30);
  CHECK(Has(Topic(findings, "model"), "ok: llama, 2 layers, width 256, context 20000, 400 tokens"));
  CHECK(Has(Topic(findings, "tensors"), "IQ4_K"));
  CHECK(Has(Topic(findings, "tokenizer"), "ok: llama, pre-tokenizer default"));
  CHECK(Has(Topic(findings, "template"), "note: the file has no chat template"));
  CHECK(Has(Topic(findings, "fit"), "ok: fits with a context of 20000"));

  const auto table = MemoryTable(file, uint64_t{8} << 30);
  REQUIRE(table.size() == 9);  // 4096, 16384, 20000 in three types
  CHECK(table[0].n_ctx == 4096);
  CHECK(table[8].n_ctx == 20000);
  CHECK(table[1].kv_type == "f16");
  CHECK(table[2].kv == 2 * table[1].kv);  // f32
  CHECK(table[1].kv == 4096ull * 2 * 2 * 256 * 2);
  CHECK(table[0].kv < table[1].kv);
  for (const PlanRow& row : table) CHECK(row.fits);

  const uint64_t tight = table[1].weights + table[1].kv + table[1].scratch;
  CHECK(Has(Topic(ModelFindings(file, tight), "fit"), "ok: fits with a context of 4096"));
  CHECK(Has(Topic(ModelFindings(file, table[0].weights), "fit"), "problem: needs at least"));
}

TEST_CASE(
    "A model that is ill: broken template, no tokenizer, types nobody can compute with, no model "
    "at all") {
  ThreadPool pool(1);
  const SyntheticModel spec = ParseSynthetic("layers=1,embd=64,ff=64,vocab=400:F32");
  const auto findings_of = [&](auto change) {
    GgufWriter w = SyntheticWriter(spec, pool);
    change(w);
    const std::vector<uint8_t> bytes = w.WriteToBytes();
    return ModelFindings(GgufFile::FromBytes(bytes, "ill.gguf"), 0);
  };
  CHECK(Has(Topic(findings_of([](GgufWriter& w) {
                    w.Set("tokenizer.chat_template",
                          "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}");
                  }),
                  "template"),
            "ok: renders: <user>Hello"));
  CHECK(Has(Topic(findings_of([](GgufWriter& w) { w.Set("tokenizer.chat_template", "{% for %}"); }),
                  "template"),
            "problem: "));
  CHECK(Has(Topic(findings_of([](GgufWriter& w) {
                    w.Set("tokenizer.chat_template", "{{ messages[7].content.x.y }}");
                  }),
                  "template"),
            "problem: "));
  CHECK(Has(Topic(findings_of([](GgufWriter& w) { w.Set("tokenizer.chat_template", "constant"); }),
                  "template"),
            "warning: "));
  CHECK(
      Has(Topic(findings_of([](GgufWriter& w) { w.Remove("tokenizer.ggml.model"); }), "tokenizer"),
          "problem: "));
  const std::vector<uint8_t> some(8 * 36);
  CHECK(Has(Topic(findings_of([&](GgufWriter& w) {
                    w.AddTensor("extra.weight", {64, 8}, 40, std::span(some));
                  }),
                  "tensors"),
            "problem: types that cannot be computed with: NVFP4"));
  const auto none = findings_of([](GgufWriter& w) { w.Set("general.architecture", "mamba"); });
  REQUIRE(none.size() == 1);
  CHECK(none[0].verdict == Verdict::kProblem);
  CHECK(Has(none[0].text, "mamba"));
}

TEST_CASE("Limits are told with their age") {
  bench::Roofline r;
  r.threads = 2;
  r.measured_at = 1000;
  r.stream.memory_n = 35.2;
  r.peaks = {{"avx2", "vpmaddubsw ymm", PeakKind::kInt8, 500, 1000}};
  auto f = RooflineFindings(r, 1000 + 7200);
  REQUIRE(f.size() == 1);
  CHECK(f[0].text ==
        "memory 35.2 GB/s, int8 1.00 TOPS, bf16 0.00 TOPS with 2 threads; measured 2 hours ago");
  CHECK(f[0].verdict == Verdict::kOk);
  r.noise = "other processes used 0.90 CPUs";
  f = RooflineFindings(r, 1000);
  CHECK(f[0].verdict == Verdict::kNote);
  CHECK(Has(f[0].fix, "--fresh"));
}

TEST_CASE("Status lines tell bytes a token and the share of the limit") {
  ThreadPool pool(1);
  const auto model = Model::Load(
      BuildSynthetic(ParseSynthetic("layers=2,embd=256,ff=512,vocab=400:Q8_0"), pool, 0), pool);
  const KvLayout kv(model->hparams(), KvType::kF16);
  CHECK(bench::DecodeSpeedText(*model, kv, 0, 0, 1, {}).empty());
  CHECK(bench::DecodeSpeedText(*model, kv, 0, 5, 0, {}).empty());
  const double bytes = WorkOfPass(*model, kv, 10, 1, 1).bytes();
  const std::string text = bench::DecodeSpeedText(*model, kv, 10, 1, bytes / 2e9, {});
  CHECK(text == Format("%.1f MB a token, 2.0 GB/s", bytes / 1e6));
  bench::Roofline limits;
  limits.stream.memory_n = 4;
  CHECK(bench::DecodeSpeedText(*model, kv, 10, 1, bytes / 2e9, limits) ==
        text + ", 50 % of the limit");
}

}  // namespace lutra::doctor
