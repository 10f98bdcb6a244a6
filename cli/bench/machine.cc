#include "cli/bench/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/base/error.h"
#include "kernels/base/file_text.h"
#include "kernels/roofline.h"

namespace lutra::bench {
namespace {

std::optional<uint64_t> ReadNumber(const std::string& path) {
  const std::string text = FileText(path);
  uint64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return v;
}

double Seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

volatile uint64_t g_sink;

// A few milliseconds; the best of three, so that an interruption is not taken for a slow clock.
double MeasureClockGhz() {
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    constexpr uint64_t kCycles = 4'000'000;
    const double start = NowSeconds();
    g_sink = ClockChain(kCycles);
    best = std::max(best, static_cast<double>(kCycles) / (NowSeconds() - start) / 1e9);
  }
  return best;
}

}  // namespace

void ParseProcStat(const std::string& text, double ticks, MachineState* state) {
  // cpu user nice system idle iowait irq softirq steal guest guest_nice; guest times are inside user and nice.
  std::istringstream in(text);
  std::string name;
  double v[8] = {};
  in >> name;
  if (name != "cpu") return;
  for (double& x : v) in >> x;
  state->busy_cpu_s = (v[0] + v[1] + v[2] + v[5] + v[6]) / ticks;
  state->steal_cpu_s = v[7] / ticks;
}

MachineState ReadMachineState() {
  MachineState s;
  s.clock_ghz = MeasureClockGhz();
  ParseProcStat(FileText("/proc/stat"), static_cast<double>(::sysconf(_SC_CLK_TCK)), &s);
  struct rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  s.own_cpu_s = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  s.involuntary = static_cast<uint64_t>(usage.ru_nivcsw);
  s.seconds = NowSeconds();
  return s;
}

std::string NoiseText(const MachineState& before, const MachineState& after, int threads) {
  const double seconds = after.seconds - before.seconds;
  if (seconds <= 0) return "";
  std::string out;
  const auto add = [&](const std::string& what) { out += (out.empty() ? "" : ", ") + what; };
  const double steal = (after.steal_cpu_s - before.steal_cpu_s) / seconds;
  const double busy = (after.busy_cpu_s - before.busy_cpu_s) / seconds;
  const double others = busy - (after.own_cpu_s - before.own_cpu_s) / seconds;
  // Counters tick in hundredths of a second: a short test cannot tell less.
  const double least = std::max(0.03 * threads, 0.03 / seconds);
  if (steal > least) add(Format("the hypervisor took %.2f CPUs", steal));
  if (others > least) add(Format("other processes used %.2f CPUs", others));
  const double switches =
      static_cast<double>(after.involuntary - before.involuntary) / seconds / threads;
  if (switches > 20) add(Format("each thread was put aside %.0f times a second", switches));
  if (before.clock_ghz > 0 && after.clock_ghz > 0 &&
      std::abs(after.clock_ghz / before.clock_ghz - 1) > 0.05) {
    add(Format("the clock went from %.2f to %.2f GHz", before.clock_ghz, after.clock_ghz));
  }
  return out;
}

EnergyMeter::EnergyMeter(const std::string& root) {
  // intel-rapl:0, intel-rapl:1 ... are packages (AMD's too); intel-rapl:0:0 are parts of one.
  const std::filesystem::path dir = root + "/sys/class/powercap";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind("intel-rapl:", 0) != 0 || name.find(':', 11) != std::string::npos) continue;
    const std::string path = entry.path() / "energy_uj";
    if (!ReadNumber(path)) continue;
    domains_.push_back({path, ReadNumber(entry.path() / "max_energy_range_uj").value_or(0)});
  }
}

void EnergyMeter::Start() {
  for (Domain& d : domains_) d.start_uj = ReadNumber(d.path).value_or(0);
}

std::optional<double> EnergyMeter::Stop() const {
  if (domains_.empty()) return std::nullopt;
  double joules = 0;
  for (const Domain& d : domains_) {
    const auto now = ReadNumber(d.path);
    if (!now) return std::nullopt;
    const uint64_t uj = *now >= d.start_uj ? *now - d.start_uj : *now + d.range_uj - d.start_uj;
    joules += static_cast<double>(uj) / 1e6;
  }
  return joules;
}

double RssPeakMib(const std::string& root) {
  std::istringstream in(FileText(root + "/proc/self/status"));
  std::string key, rest;
  while (in >> key) {
    double kib = 0;
    if (key == "VmHWM:" && in >> kib) return kib / 1024;
    std::getline(in, rest);
  }
  return 0;
}

void ResetRssPeak() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5";
}

}  // namespace lutra::bench
