#include "kernels/base/cpu.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/file_text.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace lutra {
namespace {

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.back() == '\n' || s.back() == ' ')) s.remove_suffix(1);
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  return s;
}

std::optional<int64_t> ParseInt(std::string_view s) {
  s = Trim(s);
  int64_t v = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
  if (error != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return v;
}

// "0-3,8" -> {0, 1, 2, 3, 8}; what does not parse is left out.
std::set<int> ParseCpuList(std::string_view list) {
  std::set<int> cpus;
  list = Trim(list);
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view item = list.substr(0, comma);
    const size_t dash = item.find('-');
    const auto first = ParseInt(item.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : ParseInt(item.substr(dash + 1));
    if (first && last && *first >= 0 && *last < 65536) {
      for (int64_t c = *first; c <= *last; ++c) cpus.insert(static_cast<int>(c));
    }
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return cpus;
}

std::set<int> OwnAffinity() {
  std::set<int> cpus;
  for (size_t n = 1024; n <= 65536; n *= 4) {
    cpu_set_t* set = CPU_ALLOC(n);
    const size_t bytes = CPU_ALLOC_SIZE(n);
    CPU_ZERO_S(bytes, set);
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    if (ok) {
      for (size_t c = 0; c < n; ++c) {
        if (CPU_ISSET_S(c, bytes, set)) cpus.insert(static_cast<int>(c));
      }
    }
    CPU_FREE(set);
    if (ok) break;
  }
  if (cpus.empty()) {
    const int n = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    for (int c = 0; c < n; ++c) cpus.insert(c);
  }
  return cpus;
}

// The cgroup path of controller `name` ("" for v2) from /proc/self/cgroup.
std::string CgroupPath(const std::string& root, const std::string& name) {
  std::istringstream lines(FileText(root + "/proc/self/cgroup"));
  std::string line;
  while (std::getline(lines, line)) {
    const size_t a = line.find(':');
    const size_t b = a == std::string::npos ? a : line.find(':', a + 1);
    if (b == std::string::npos) continue;
    const std::string controllers = "," + line.substr(a + 1, b - a - 1) + ",";
    const bool match = name.empty() ? controllers == ",,"
                                    : controllers.find("," + name + ",") != std::string::npos;
    if (match) return line.substr(b + 1);
  }
  return "";
}

// Calls visit(folder) for the group's folder and all its parents under `mount`.
template <class Visit>
void WalkUp(const std::string& mount, std::string path, Visit visit) {
  for (;;) {
    visit(mount + path);
    if (path.empty() || path == "/") {
      if (path == "/") visit(mount);
      return;
    }
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

// CPUs of quota, 0 if unlimited.
double CpuQuota(const std::string& root) {
  double least = 0;
  const auto take = [&](double quota) {
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
  };
  WalkUp(root + "/sys/fs/cgroup", CgroupPath(root, ""), [&](const std::string& dir) {
    std::istringstream in(FileText(dir + "/cpu.max"));
    std::string quota, period;
    if (in >> quota >> period) {
      const auto q = ParseInt(quota), p = ParseInt(period);
      if (q && p && *p > 0) take(static_cast<double>(*q) / static_cast<double>(*p));
    }
  });
  for (const char* mount : {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}) {
    WalkUp(root + mount, CgroupPath(root, "cpu"), [&](const std::string& dir) {
      const auto q = ParseInt(FileText(dir + "/cpu.cfs_quota_us"));
      const auto p = ParseInt(FileText(dir + "/cpu.cfs_period_us"));
      if (q && p && *q > 0 && *p > 0) take(static_cast<double>(*q) / static_cast<double>(*p));
    });
  }
  return least;
}

}  // namespace

ThreadAdvice AdviseThreads(const std::string& root, const std::string& affinity) {
  std::set<int> cpus = affinity.empty() ? OwnAffinity() : ParseCpuList(affinity);
  const size_t n_allowed = cpus.size();
  std::string what;
  // Hybrid: the kernel lists performance cores apart; efficiency cores would make every phase wait for them.
  const std::set<int> performance = ParseCpuList(FileText(root + "/sys/devices/cpu_core/cpus"));
  if (!performance.empty()) {
    std::set<int> kept;
    for (int c : cpus) {
      if (performance.count(c)) kept.insert(c);
    }
    if (!kept.empty() && kept.size() < cpus.size()) {
      cpus = kept;
      what = "performance ";
    }
  }
  std::set<std::string> cores;
  for (int c : cpus) {
    const std::string siblings = FileText(root + "/sys/devices/system/cpu/cpu" + std::to_string(c) +
                                          "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(c) : std::string(Trim(siblings)));
  }
  int threads = std::max<int>(1, static_cast<int>(cores.size()));
  std::string reason = Format("%d %s%s", threads, what.empty() ? "physical " : what.c_str(),
                              threads == 1 ? "core" : "cores");
  if (n_allowed != cores.size()) reason += Format(" of %zu CPUs allowed", n_allowed);
  const double quota = CpuQuota(root);
  if (quota > 0 && quota < threads) {
    threads = std::max(1, static_cast<int>(quota));
    reason += Format(", cut by a cgroup quota of %.4g CPUs", quota);
  }
  return {threads,
          Format("%d %s: %s", threads, threads == 1 ? "thread" : "threads", reason.c_str())};
}

MemoryAdvice AdviseMemory(const std::string& root) {
  MemoryAdvice advice{0, 0};
  std::istringstream lines(FileText(root + "/proc/meminfo"));
  std::string key, rest;
  while (lines >> key) {
    uint64_t kib = 0;
    lines >> kib;
    std::getline(lines, rest);
    if (key == "MemTotal:") advice.total_bytes = kib * 1024;
    if (key == "MemAvailable:") advice.available_bytes = kib * 1024;
  }
  const auto cap = [&](const std::string& dir, const char* limit_file, const char* usage_file) {
    const auto limit = ParseInt(FileText(dir + limit_file));
    const auto usage = ParseInt(FileText(dir + usage_file));
    if (!limit || *limit <= 0) return;
    const uint64_t max = static_cast<uint64_t>(*limit);
    const uint64_t used = usage && *usage > 0 ? static_cast<uint64_t>(*usage) : 0;
    advice.total_bytes = std::min(advice.total_bytes, max);
    advice.available_bytes = std::min(advice.available_bytes, max > used ? max - used : 0);
  };
  WalkUp(root + "/sys/fs/cgroup", CgroupPath(root, ""),
         [&](const std::string& dir) { cap(dir, "/memory.max", "/memory.current"); });
  WalkUp(root + "/sys/fs/cgroup/memory", CgroupPath(root, "memory"), [&](const std::string& dir) {
    cap(dir, "/memory.limit_in_bytes", "/memory.usage_in_bytes");
  });
  return advice;
}

#if defined(__x86_64__)
bool CpuHasAvxVnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}
bool CpuHasAvx512Vnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c >> 11 & 1) != 0;
}
AmxSupport CpuAmx() {
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d >> 24 & 1) == 0) return {false, false};
  return {(d >> 25 & 1) != 0, (d >> 22 & 1) != 0};
}
#else
bool CpuHasAvxVnni() { return false; }
bool CpuHasAvx512Vnni() { return false; }
AmxSupport CpuAmx() { return {false, false}; }
#endif

#if defined(__x86_64__) && defined(__linux__)
bool RequestAmx() {
  static const bool allowed = [] {
    constexpr long kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;  // arch_prctl(2)
    return CpuAmx().int8 && ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
  }();
  return allowed;
}
#else
bool RequestAmx() { return false; }
#endif

bool CpuHasArmDot() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  return (::getauxval(AT_HWCAP) & kAsimdDp) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;  // every Apple CPU that runs 64-bit macOS
#else
  return false;
#endif
}

bool CpuHasAmxInt8() { return CpuAmx().int8 && RequestAmx(); }

}  // namespace lutra
