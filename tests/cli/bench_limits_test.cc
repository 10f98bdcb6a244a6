// Limits, noise, energy and comparisons: arithmetic over given numbers and files.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/bench/compare.h"
#include "cli/bench/machine.h"
#include "cli/bench/record.h"
#include "cli/bench/roofline.h"
#include "kernels/base/error.h"
#include "tests/test_util.h"

namespace lutra::bench {
namespace {

namespace fs = std::filesystem;

Roofline SomeRoofline() {
  Roofline r;
  r.cpu = "Some CPU";
  r.threads = 2;
  r.measured_at = 1000;
  r.clock_ghz = 3.5;
  r.stream = {100, 200, 20, 40};
  r.peaks = {{"avx2", "vpmaddubsw ymm", PeakKind::kInt8, 300, 600},
             {"avx512-vnni", "vpdpbusd zmm", PeakKind::kInt8, 1000, 2000},
             {"avx512-bf16", "vdpbf16ps zmm", PeakKind::kBf16, 500, 1000},
             {"avx512", "vfmadd zmm", PeakKind::kF32, 250, 500}};
  return r;
}

// A folder that goes with the test.
struct TempDir {
  TempDir()
      : path((fs::temp_directory_path() / ("lutra_bench_test_" + std::to_string(::getpid())))
                 .string()) {
    fs::create_directories(path);
  }
  ~TempDir() { fs::remove_all(path); }
  void Write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(path + name).parent_path());
    std::ofstream(path + name) << text;
  }
  std::string path;
};

template <class F>
std::string Message(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Least seconds: the greater of memory and arithmetic") {
  const Roofline r = SomeRoofline();
  CHECK(r.best_gops(PeakKind::kInt8) == 2000);
  CHECK(r.best_gops(PeakKind::kBf16) == 1000);
  Work w;
  w.weight_bytes = 30e9;
  w.kv_bytes = 10e9;
  CHECK(LeastSeconds(w, r) == doctest::Approx(1.0));
  w.int8_ops = 3000e9;
  CHECK(LeastSeconds(w, r) == doctest::Approx(1.5));
  w.float_ops = 500e9;
  CHECK(LeastSeconds(w, r) == doctest::Approx(2.0));

  BenchRecord record;
  record.work = w;
  record.samples_ns = {3'000'000'000, 4'000'000'000, 9'000'000'000};
  CHECK_FALSE(record.percent_of_roofline());
  record.roofline = r;
  CHECK(*record.percent_of_roofline() == doctest::Approx(50));
}

TEST_CASE("Limits survive the disk, belong to one machine and grow old") {
  const TempDir dir;
  const Roofline r = SomeRoofline();
  CHECK_FALSE(CachedRoofline(dir.path, r.cpu, 2, 1000, 100));
  REQUIRE(KeepRoofline(dir.path + "/sub", r));
  const auto got = CachedRoofline(dir.path + "/sub", r.cpu, 2, 1100, 100);
  REQUIRE(got);
  CHECK(RooflineToJson(*got) == RooflineToJson(r));
  CHECK(got->peaks.size() == 4);
  CHECK_FALSE(CachedRoofline(dir.path + "/sub", r.cpu, 2, 1101, 100));
  CHECK_FALSE(CachedRoofline(dir.path + "/sub", r.cpu, 4, 1000, 100));
  CHECK_FALSE(CachedRoofline(dir.path + "/sub", "Other", 2, 1000, 100));
  CHECK_FALSE(CachedRoofline("", r.cpu, 2, 1000, 100));
  CHECK_FALSE(KeepRoofline("", r));
  CHECK_FALSE(KeepRoofline("/proc/no", r));
  CHECK_FALSE(RooflineFromJson("{}"));
  CHECK_FALSE(RooflineFromJson("nonsense"));
  for (const auto& entry : fs::directory_iterator(dir.path + "/sub"))
    std::ofstream(entry.path()) << "{\"cpu\": 1}";
  CHECK_FALSE(CachedRoofline(dir.path + "/sub", r.cpu, 2, 1000, 100));
}

TEST_CASE("Of two measurements of a machine the greater number counts") {
  Roofline a = SomeRoofline(), b = SomeRoofline();
  a.stream.memory_n = 10;
  b.peaks[1].gops_n = 3000;
  b.peaks[0].gops_n = 1;
  const Roofline best = BestOf(a, b);
  CHECK(best.stream.memory_n == 40);
  CHECK(best.peaks[1].gops_n == 3000);
  CHECK(best.peaks[0].gops_n == 600);
}

TEST_CASE("Ages are told in the largest fitting unit") {
  CHECK(AgeText(1) == "1 second");
  CHECK(AgeText(119) == "119 seconds");
  CHECK(AgeText(600) == "10 minutes");
  CHECK(AgeText(7200) == "2 hours");
  CHECK(AgeText(300000) == "3 days");
}

TEST_CASE("Noise: what others took from the machine during a measurement") {
  MachineState a, b;
  ParseProcStat("cpu  1000 100 500 90000 77 30 20 300 50 60\ncpu0 1 2 3\n", 100, &a);
  CHECK(a.busy_cpu_s == doctest::Approx(16.5));
  CHECK(a.steal_cpu_s == doctest::Approx(3.0));
  MachineState none;
  ParseProcStat("nothing", 100, &none);
  CHECK(none.busy_cpu_s == 0);

  b = a;
  b.seconds = 10;
  b.busy_cpu_s += 20;
  b.own_cpu_s += 20;
  CHECK(NoiseText(a, b, 2).empty());
  CHECK(NoiseText(a, a, 2).empty());
  b.busy_cpu_s += 9;
  b.steal_cpu_s += 5;
  b.involuntary = 2000;
  b.clock_ghz = 2;
  MachineState begin = a;
  begin.clock_ghz = 4;
  CHECK(NoiseText(begin, b, 2) ==
        "the hypervisor took 0.50 CPUs, other processes used 0.90 CPUs, each thread was put aside "
        "100 times a second, the clock went "
        "from 4.00 to 2.00 GHz");
  const MachineState now = ReadMachineState();
  CHECK(now.clock_ghz > 0.1);
  CHECK(now.own_cpu_s > 0);
}

TEST_CASE("Energy is the sum over packages, wraps included; without counters there is none") {
  const TempDir root;
  CHECK_FALSE(EnergyMeter(root.path).readable());
  CHECK_FALSE(EnergyMeter(root.path).Stop());
  root.Write("/sys/class/powercap/intel-rapl:0/energy_uj", "1000000\n");
  root.Write("/sys/class/powercap/intel-rapl:0/max_energy_range_uj", "10000000\n");
  root.Write("/sys/class/powercap/intel-rapl:0:0/energy_uj", "5\n");
  root.Write("/sys/class/powercap/intel-rapl:1/energy_uj", "9000000\n");
  root.Write("/sys/class/powercap/intel-rapl:1/max_energy_range_uj", "10000000\n");
  EnergyMeter meter(root.path);
  REQUIRE(meter.readable());
  meter.Start();
  root.Write("/sys/class/powercap/intel-rapl:0/energy_uj", "3500000\n");
  root.Write("/sys/class/powercap/intel-rapl:1/energy_uj", "500000\n");  // wrapped
  CHECK(*meter.Stop() == doctest::Approx(2.5 + 1.5));
}

TEST_CASE("The peak of resident memory comes from the status file") {
  const TempDir root;
  root.Write("/proc/self/status", "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t  2048 kB\n");
  CHECK(RssPeakMib(root.path) == 2);
  CHECK(RssPeakMib("/no/such/root") == 0);
  CHECK(RssPeakMib() > 1);
}

TEST_CASE("Results are read from JSON, JSONL and CSV alike, ours and others'") {
  const std::string row1 =
      R"({"n_prompt": 512, "n_gen": 0, "n_depth": 0, "n_threads": 2, "avg_ts": 10, "samples_ts": [9, 10, 11]})";
  const std::string row2 = R"({"n_prompt": 0, "n_gen": 128, "n_threads": 2, "avg_ts": 5.5})";
  for (const std::string& text : {"[" + row1 + ", " + row2 + "]", row1 + "\n\n" + row2 + "\n"}) {
    const auto runs = ReadRuns(text, "x");
    REQUIRE(runs.size() == 2);
    CHECK(runs[0].test == "pp512");
    CHECK(runs[0].ts == std::vector<double>{9, 10, 11});
    CHECK(runs[1].test == "tg128");
    CHECK(runs[1].ts == std::vector<double>{5.5});
  }
  const auto csv = ReadRuns(
      "model_filename,n_prompt,n_gen,n_threads,avg_ts\n\"a \"\"b\"\", "
      "c\",\"512\",\"0\",\"2\",\"10.5\"\nx,512,0,4,20\n",
      "x");
  REQUIRE(csv.size() == 2);
  CHECK(csv[0].test == "pp512 t2");
  CHECK(csv[0].ts == std::vector<double>{10.5});
  CHECK(csv[1].test == "pp512 t4");
  const auto twice = ReadRuns("[" + row1 + ", " + row1 + "]", "x");
  CHECK(twice[1].test == "pp512 #2");

  CHECK(Message([] { ReadRuns("", "f.json"); }).find("f.json: is empty") == 0);
  CHECK(Message([] { ReadRuns("[{", "f.json"); }).find("f.json: is no JSON") == 0);
  CHECK(Message([] { ReadRuns("[1]", "f.json"); }).find("f.json: a row is no object") == 0);
  CHECK(Message([] {
          ReadRuns("[{\"n_gen\": 1}]", "f.json");
        }).find("f.json: a row has no number n_prompt") == 0);
  CHECK(Message([] {
          ReadRuns("a,b\n1,2\n", "f.csv");
        }).find("f.csv: a row has no number n_prompt") == 0);
}

TEST_CASE("A comparison pairs measurements in order and says what their ratio allows to say") {
  const std::vector<Series> a = {{"pp512", {10, 20, 10, 20, 10}},
                                 {"tg128", {5, 5, 5, 5, 5}},
                                 {"only a", {1}},
                                 {"pp1", {1, 2}}};
  const std::vector<Series> b = {{"tg128", {4.9, 5.1, 5, 4.95, 5.2}},
                                 {"pp512", {12, 24, 12.1, 23.9, 12, 99}},
                                 {"pp1", {2, 4}}};
  const auto rows = Compare(a, b);
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].test == "pp512");
  CHECK(rows[0].ratio == doctest::Approx(1.2));
  CHECK(rows[0].n_pairs == 5);
  CHECK(std::string(rows[0].verdict) == "faster");
  CHECK(rows[1].test == "tg128");
  CHECK(std::string(rows[1].verdict) == "no difference");
  CHECK(rows[1].interval.low < 1);
  CHECK(rows[1].interval.high > 1);
  CHECK(std::string(rows[2].verdict) == "too few runs");
  CHECK(std::string(Compare(b, a)[1].verdict) == "slower");
}

TEST_CASE("Command lines are cut into words as a shell cuts them") {
  using Words = std::vector<std::string>;
  CHECK(SplitWords(" -m  'a b.gguf' -p 512\t") == Words{"-m", "a b.gguf", "-p", "512"});
  CHECK(SplitWords("a\\ b \"c'd\" 'e\"f' \"\" g\"h\"i") == Words{"a b", "c'd", "e\"f", "", "ghi"});
  CHECK(SplitWords("").empty());
  CHECK(Message([] { SplitWords("a 'b"); }).find("not closed") != std::string::npos);
}

TEST_CASE("A program's output is caught, and its failure is told with its last words") {
  CHECK(RunProgram({"/bin/sh", "-c", "echo out; echo err >&2; exit 0"}) == "out\n");
  CHECK(RunProgram(
            {"/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done"})
            .size() == 220000);
  const std::string failed = Message([] {
    RunProgram({"/bin/sh", "-c", "echo first >&2; echo no model >&2; exit 3"});
  });
  CHECK(failed == "/bin/sh: ended with status 3: no model");
  CHECK(Message([] {
          RunProgram({"/bin/sh", "-c", "kill -9 $$"});
        }).find("signal 9") != std::string::npos);
  CHECK(Message([] { RunProgram({"/no/such/program"}); }).find("/no/such/program: cannot run") ==
        0);
}

}  // namespace lutra::bench
