#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "cli/doctor/findings.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/dispatch.h"

namespace lutra::doctor {
namespace {

namespace fs = std::filesystem;

// The first line of a file without blanks around it; "" if there is none.
std::string ReadLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\n')) line.pop_back();
  return line;
}

std::optional<double> ReadNumber(const std::string& path) {
  const std::string text = ReadLine(path);
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc()) return std::nullopt;
  return v;
}

std::string Gib(uint64_t bytes) {
  return Format("%.1f GiB", static_cast<double>(bytes) / (1 << 30));
}

// Folders "<prefix>N" of a directory.
size_t CountNumbered(const std::string& dir, const std::string& prefix) {
  size_t n = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir, ignored)) {
    const std::string name = entry.path().filename();
    n += name.rfind(prefix, 0) == 0 && name.size() > prefix.size() &&
         std::all_of(name.begin() + static_cast<ptrdiff_t>(prefix.size()), name.end(),
                     [](char c) { return c >= '0' && c <= '9'; });
  }
  return n;
}

// Distinct contents of cpuN/<file> over all CPUs.
std::set<std::string> OverCpus(const std::string& root, const std::string& file) {
  std::set<std::string> values;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root + "/sys/devices/system/cpu", ignored)) {
    const std::string name = entry.path().filename();
    if (name.size() < 4 || name.rfind("cpu", 0) != 0 || name[3] < '0' || name[3] > '9') continue;
    const std::string value = ReadLine(entry.path() / file);
    if (!value.empty()) values.insert(value);
  }
  return values;
}

std::string Join(const std::set<std::string>& items) {
  std::string out;
  for (const std::string& s : items) out += (out.empty() ? "" : ", ") + s;
  return out;
}

class Findings {
 public:
  void Add(Verdict v, const char* topic, std::string text, std::string fix = "") {
    list.push_back({v, topic, std::move(text), std::move(fix)});
  }
  std::vector<Finding> list;
};

void Simd(const CpuFacts& cpu, Findings* f) {
  std::string sets;
  for (const std::string& s : cpu.simd) sets += (sets.empty() ? "" : " ") + s;
  if (cpu.simd.empty() || cpu.simd_in_use == cpu.simd.back()) {
    f->Add(Verdict::kOk, "SIMD",
           Format("%s in use; this CPU can run: %s", cpu.simd_in_use.c_str(), sets.c_str()));
  } else {
    f->Add(Verdict::kWarning, "SIMD",
           Format("capped to %s; this CPU can run: %s", cpu.simd_in_use.c_str(), sets.c_str()),
           "unset LUTRA_SIMD, leave out --simd");
  }
  if (cpu.simd.size() == 1) {
    f->Add(Verdict::kWarning, "SIMD",
           "only the baseline instruction set: many times slower than AVX2",
           "in a virtual machine, pass the host's CPU through (for example: -cpu host)");
  }
  if (cpu.amx_int8 && !cpu.amx_allowed) {
    f->Add(Verdict::kWarning, "AMX",
           "the CPU has AMX, but the system does not let this process use it",
           "Linux 5.16 or later is needed, and a seccomp filter must allow "
           "arch_prctl(ARCH_REQ_XCOMP_PERM)");
  } else if (cpu.amx_int8) {
    f->Add(Verdict::kOk, "AMX", "available and allowed");
  }
}

void Threads(const std::string& root, const std::string& affinity, Findings* f) {
  const ThreadAdvice advice = AdviseThreads(root, affinity);
  const bool cut = advice.reason.find("quota") != std::string::npos;
  const bool partly = advice.reason.find("CPUs allowed") != std::string::npos;
  f->Add(cut ? Verdict::kWarning : Verdict::kOk, "threads", advice.reason,
         cut ? "raise the container's CPU limit" : "");
  if (partly && !cut) {
    f->Add(Verdict::kNote, "threads",
           "hyperthreads and efficiency cores are left out: they make every phase wait for them",
           "to try them all the same: -t N");
  }
}

void Numa(const std::string& root, Findings* f) {
  const size_t nodes = CountNumbered(root + "/sys/devices/system/node", "node");
  if (nodes <= 1) {
    f->Add(Verdict::kOk, "NUMA", "one memory node");
    return;
  }
  f->Add(Verdict::kWarning, "NUMA",
         Format("%zu memory nodes: threads on one read weights that lie on another", nodes),
         "numactl --interleave=all lutra ..., or stay on one node: numactl -N 0 -m 0 lutra ...");
  if (ReadNumber(root + "/proc/sys/kernel/numa_balancing").value_or(0) != 0) {
    f->Add(Verdict::kWarning, "NUMA", "automatic balancing moves pages while the model runs",
           "echo 0 | sudo tee /proc/sys/kernel/numa_balancing");
  }
}

void HugePages(const std::string& root, Findings* f) {
  const std::string text = ReadLine(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t begin = text.find('['), end = text.find(']');
  if (text.empty() || begin == std::string::npos || end == std::string::npos) {
    f->Add(Verdict::kNote, "huge pages", "the kernel does not offer transparent huge pages");
    return;
  }
  const std::string mode = text.substr(begin + 1, end - begin - 1);
  if (mode == "never") {
    f->Add(Verdict::kWarning, "huge pages",
           "transparent huge pages are off: address translation costs a few percent",
           "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
  } else {
    f->Add(Verdict::kOk, "huge pages", "transparent huge pages: " + mode);
  }
}

void Clock(const std::string& root, Findings* f) {
  const std::set<std::string> governors = OverCpus(root, "cpufreq/scaling_governor");
  const std::set<std::string> drivers = OverCpus(root, "cpufreq/scaling_driver");
  if (governors.empty()) {
    f->Add(Verdict::kOk, "clock",
           "the system does not control the clock (usual in virtual machines)");
  } else if (governors == std::set<std::string>{"performance"} ||
             governors.count("schedutil") != 0) {
    f->Add(Verdict::kOk, "clock", "governor " + Join(governors));
  } else if (governors == std::set<std::string>{"powersave"} &&
             (drivers.count("intel_pstate") != 0 || drivers.count("amd-pstate-epp") != 0)) {
    // These drivers' powersave scales with the load; the preference says how eagerly.
    const std::set<std::string> preferences =
        OverCpus(root, "cpufreq/energy_performance_preference");
    const bool slow = preferences.count("power") != 0 || preferences.count("balance_power") != 0;
    f->Add(
        slow ? Verdict::kWarning : Verdict::kOk, "clock",
        "governor powersave, preference " + (preferences.empty() ? "unknown" : Join(preferences)),
        slow ? "sudo cpupower frequency-set -g performance" : "");
  } else {
    f->Add(Verdict::kWarning, "clock", "governor " + Join(governors) + ": the clock may stay low",
           "sudo cpupower frequency-set -g performance");
  }
  if (ReadLine(root + "/sys/devices/system/cpu/cpufreq/boost") == "0" ||
      ReadLine(root + "/sys/devices/system/cpu/intel_pstate/no_turbo") == "1") {
    f->Add(
        Verdict::kWarning, "clock", "turbo is off",
        "echo 1 | sudo tee /sys/devices/system/cpu/cpufreq/boost (or 0 to intel_pstate/no_turbo)");
  }
}

void Memory(const std::string& root, Findings* f) {
  const MemoryAdvice memory = AdviseMemory(root);
  if (memory.total_bytes == 0) {
    f->Add(Verdict::kNote, "memory", "the system does not say how much memory there is");
    return;
  }
  const bool little = memory.available_bytes < memory.total_bytes / 4;
  f->Add(little ? Verdict::kWarning : Verdict::kOk, "memory",
         Format("%s available of %s", Gib(memory.available_bytes).c_str(),
                Gib(memory.total_bytes).c_str()),
         little ? "end what uses it: ps -eo rss,comm --sort -rss | head" : "");
  if (ReadNumber(root + "/proc/sys/vm/overcommit_memory").value_or(0) == 2) {
    f->Add(Verdict::kWarning, "memory",
           "strict overcommit: large contexts may be refused although memory is free",
           "sudo sysctl vm.overcommit_memory=0");
  }
}

void Load(const std::string& root, Findings* f) {
  const auto load = ReadNumber(root + "/proc/loadavg");
  const size_t cpus = std::max<size_t>(1, CountNumbered(root + "/sys/devices/system/cpu", "cpu"));
  if (!load) return;
  const bool busy = *load > 0.25 * static_cast<double>(cpus) && *load > 0.5;
  f->Add(busy ? Verdict::kWarning : Verdict::kOk, "load",
         Format("%.2f runnable threads on %zu CPUs in the last minute", *load, cpus),
         busy ? "see what runs: top -o %CPU" : "");
}

}  // namespace

const char* VerdictName(Verdict v) {
  switch (v) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kNote:
      return "note";
    case Verdict::kWarning:
      return "warning";
    case Verdict::kProblem:
      return "problem";
  }
  return "";
}

CpuFacts ThisCpu() {
  const bool amx = CpuAmx().int8;
  return {AvailableSimd(), SimdName(), amx, amx && RequestAmx()};
}

std::vector<Finding> MachineFindings(const std::string& root, const std::string& affinity,
                                     const CpuFacts& cpu) {
  Findings f;
  f.Add(Verdict::kOk, "CPU", Printable(bench::CpuName(root), 100));
  Simd(cpu, &f);
  Threads(root, affinity, &f);
  Numa(root, &f);
  HugePages(root, &f);
  Clock(root, &f);
  Memory(root, &f);
  Load(root, &f);
  return f.list;
}

std::vector<Finding> RooflineFindings(const bench::Roofline& r, int64_t now) {
  Findings f;
  const bool noisy = !r.noise.empty();
  f.Add(
      noisy ? Verdict::kNote : Verdict::kOk, "limits",
      Format("memory %.1f GB/s, int8 %.2f TOPS, bf16 %.2f TOPS with %d thread%s; measured %s ago%s",
             r.bandwidth_gbps(), r.best_gops(PeakKind::kInt8) / 1e3,
             r.best_gops(PeakKind::kBf16) / 1e3, r.threads, r.threads == 1 ? "" : "s",
             bench::AgeText(now - r.measured_at).c_str(),
             noisy ? (" while " + r.noise).c_str() : ""),
      noisy ? "lutra bench roofline --fresh, when nothing else runs" : "");
  return f.list;
}

}  // namespace lutra::doctor
