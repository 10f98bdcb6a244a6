#include "cli/bench/roofline.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "cli/bench/machine.h"
#include "kernels/base/aligned.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/base/file_text.h"
#include "kernels/base/parallel.h"

namespace lutra::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kCacheBytes = 256 << 10;
// Many short samples, the best of which counts: a limit is what the machine can do when nothing disturbs it, and a sample shorter
// than a scheduler's slice has a chance to be undisturbed even on a busy machine.
constexpr double kSampleSeconds = 0.002;
constexpr int kSamples = 60;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Units of work a second: `piece` does one piece (any thread) and returns its units.
template <class Piece>
double BestRate(ThreadPool& pool, Piece piece) {
  const auto run = [&](size_t n) {
    std::vector<double> units(n);
    double seconds = 0;
    pool.Region([&] {
      pool.For(static_cast<size_t>(pool.n_threads()) * 64,
               [](size_t) { ClockChain(2000); });  // so that all are there
      const auto start = Clock::now();
      pool.For(n, [&](size_t i) { units[i] = piece(i); });
      seconds = Since(start);
    });
    double sum = 0;
    for (const double u : units) sum += u;
    return std::pair(sum, seconds);
  };
  size_t n = static_cast<size_t>(pool.n_threads()) * 4;
  double seconds = run(n).second;
  while (seconds < kSampleSeconds / 2 && n < (size_t{1} << 24)) {
    n = static_cast<size_t>(static_cast<double>(n) *
                            std::clamp(kSampleSeconds / std::max(seconds, 1e-6), 1.5, 16.0));
    seconds = run(n).second;
  }
  double best = 0;
  for (int i = 0; i < kSamples; ++i) {
    const auto [units, s] = run(n);
    best = std::max(best, units / s);
  }
  return best;
}

// Memory that the caches cannot hold, in huge pages where the system gives them.
AlignedArray<uint8_t> LargeBuffer(ThreadPool& pool) {
  const uint64_t available = AdviseMemory().available_bytes;
  size_t bytes = size_t{1} << 30;
  while (available != 0 && bytes > available / 4 && bytes > (size_t{64} << 20)) bytes /= 2;
  AlignedArray<uint8_t> buffer(bytes);
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(buffer.data()) + kHuge - 1) / kHuge * kHuge;
  const uintptr_t end = reinterpret_cast<uintptr_t>(buffer.data() + bytes) / kHuge * kHuge;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  pool.Region([&] {
    pool.For(bytes / kPeakOperandBytes, [&](size_t i) {
      FillPeakOperands(PeakKind::kInt8, i + 1, buffer.data() + i * kPeakOperandBytes);
    });
  });
  return buffer;
}

volatile uint64_t g_sink;

double MeasureClock() {
  double best = 0;
  for (int i = 0; i < kSamples; ++i) {
    constexpr uint64_t kCycles = 4'000'000;
    const auto start = Clock::now();
    g_sink = ClockChain(kCycles);
    best = std::max(best, kCycles / Since(start) / 1e9);
  }
  return best;
}

double CacheRate(ThreadPool& pool) {
  return BestRate(pool,
                  [](size_t) {
                    thread_local AlignedArray<uint8_t> buffer;
                    if (buffer.empty()) {
                      buffer = AlignedArray<uint8_t>(kCacheBytes);
                      for (size_t at = 0; at < kCacheBytes; at += kPeakOperandBytes)
                        FillPeakOperands(PeakKind::kInt8, at + 1, buffer.data() + at);
                    }
                    uint64_t sum = 0;
                    for (int i = 0; i < 16; ++i) sum += StreamRead(buffer.data(), kCacheBytes);
                    g_sink = sum;
                    return 16.0 * kCacheBytes;
                  }) /
         1e9;
}

double MemoryRate(ThreadPool& pool, const AlignedArray<uint8_t>& buffer) {
  constexpr size_t kPiece = size_t{1} << 20;
  const size_t n_pieces = buffer.size() / kPiece;
  const size_t window = std::min<size_t>(
      n_pieces, 64);  // MiB a sample: behind it come all others before it is read again
  double best = 0;
  size_t first = 0;
  for (int i = 0; i < kSamples; ++i) {
    double seconds = 0;
    pool.Region([&] {
      pool.For(static_cast<size_t>(pool.n_threads()) * 64, [](size_t) { ClockChain(2000); });
      const auto start = Clock::now();
      pool.For(window, [&](size_t p) {
        g_sink = StreamRead(buffer.data() + (first + p) % n_pieces * kPiece, kPiece);
      });
      seconds = Since(start);
    });
    first += window;
    best = std::max(best, static_cast<double>(window * kPiece) / seconds);
  }
  return best / 1e9;
}

double PeakRate(ThreadPool& pool, const PeakKernel& kernel) {
  AlignedArray<uint8_t> operands(kPeakOperandBytes);
  FillPeakOperands(kernel.kind, 1, operands.data());
  return BestRate(pool,
                  [&](size_t) {
                    int32_t sink;
                    const uint64_t ops = kernel.run(operands.data(), 500, &sink);
                    g_sink = static_cast<uint64_t>(sink);
                    return static_cast<double>(ops);
                  }) /
         1e9;
}

const char* KindName(PeakKind kind) {
  switch (kind) {
    case PeakKind::kInt8:
      return "int8";
    case PeakKind::kBf16:
      return "bf16";
    case PeakKind::kF32:
      return "f32";
  }
  return "";
}

std::string CacheFile(const std::string& dir, const std::string& cpu, int threads) {
  uint64_t h = 0xCBF29CE484222325u;  // FNV-1a: machines may share a home
  for (const char c : cpu) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return Format("%s/roofline-%016llx-%d.json", dir.c_str(), static_cast<unsigned long long>(h),
                threads);
}

}  // namespace

double Roofline::best_gops(PeakKind kind) const {
  double best = 0;
  for (const Peak& p : peaks) {
    if (p.kind == kind || (kind == PeakKind::kBf16 && p.kind == PeakKind::kF32))
      best = std::max(best, p.gops_n);
  }
  return best;
}

Roofline MeasureRoofline(int threads, const std::function<void(const std::string&)>& progress) {
  const auto say = [&](const std::string& what) {
    if (progress) progress("roofline: " + what);
  };
  Roofline r;
  r.cpu = CpuName();
  r.threads = threads;
  r.measured_at = std::time(nullptr);
  ThreadPool one(1), all(threads);
  const MachineState before = ReadMachineState();
  say("clock");
  r.clock_ghz = MeasureClock();
  say("caches");
  r.stream.cache_1 = CacheRate(one);
  r.stream.cache_n = CacheRate(all);
  say("memory");
  const AlignedArray<uint8_t> buffer = LargeBuffer(all);
  r.stream.memory_1 = MemoryRate(one, buffer);
  r.stream.memory_n = MemoryRate(all, buffer);
  for (const PeakKernel& kernel : PeakKernels()) {
    if (!kernel.available()) continue;
    say(kernel.instruction);
    r.peaks.push_back({kernel.name, kernel.instruction, kernel.kind, PeakRate(one, kernel),
                       PeakRate(all, kernel)});
  }
  r.noise = NoiseText(before, ReadMachineState(), threads);
  return r;
}

Roofline BestOf(const Roofline& a, const Roofline& b) {
  Roofline best = a;
  const auto raise = [](double* to, double v) { *to = std::max(*to, v); };
  raise(&best.clock_ghz, b.clock_ghz);
  raise(&best.stream.cache_1, b.stream.cache_1);
  raise(&best.stream.cache_n, b.stream.cache_n);
  raise(&best.stream.memory_1, b.stream.memory_1);
  raise(&best.stream.memory_n, b.stream.memory_n);
  for (Roofline::Peak& p : best.peaks) {
    for (const Roofline::Peak& q : b.peaks) {
      if (p.name != q.name || p.instruction != q.instruction) continue;
      raise(&p.gops_1, q.gops_1);
      raise(&p.gops_n, q.gops_n);
    }
  }
  return best;
}

double LeastSeconds(const Work& work, const Roofline& r) {
  const double int8 = r.best_gops(PeakKind::kInt8), real = r.best_gops(PeakKind::kBf16);
  // Both kinds of arithmetic run on the same units, one after the other.
  const double compute =
      (int8 > 0 ? work.int8_ops / int8 : 0) + (real > 0 ? work.float_ops / real : 0);
  const double memory = r.bandwidth_gbps() > 0 ? work.bytes() / r.bandwidth_gbps() : 0;
  return std::max(compute, memory) / 1e9;
}

std::string RooflineToJson(const Roofline& r) {
  nlohmann::ordered_json json = {
      {"cpu", r.cpu},
      {"threads", r.threads},
      {"measured_at", r.measured_at},
      {"noise", r.noise},
      {"clock_ghz", r.clock_ghz},
      {"cache_gbps", {{"one_thread", r.stream.cache_1}, {"all_threads", r.stream.cache_n}}},
      {"memory_gbps", {{"one_thread", r.stream.memory_1}, {"all_threads", r.stream.memory_n}}},
      {"peaks", nlohmann::json::array()}};
  for (const Roofline::Peak& p : r.peaks) {
    json["peaks"].push_back({{"name", p.name},
                             {"instruction", p.instruction},
                             {"kind", KindName(p.kind)},
                             {"gops_one_thread", p.gops_1},
                             {"gops_all_threads", p.gops_n}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::optional<Roofline> RooflineFromJson(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    Roofline r;
    r.cpu = json.at("cpu");
    r.threads = json.at("threads");
    r.measured_at = json.at("measured_at");
    r.noise = json.at("noise");
    r.clock_ghz = json.at("clock_ghz");
    r.stream = {json.at("cache_gbps").at("one_thread"), json.at("cache_gbps").at("all_threads"),
                json.at("memory_gbps").at("one_thread"), json.at("memory_gbps").at("all_threads")};
    for (const auto& p : json.at("peaks")) {
      const std::string kind = p.at("kind");
      r.peaks.push_back({p.at("name"), p.at("instruction"),
                         kind == "int8"   ? PeakKind::kInt8
                         : kind == "bf16" ? PeakKind::kBf16
                                          : PeakKind::kF32,
                         p.at("gops_one_thread"), p.at("gops_all_threads")});
    }
    return r;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

std::string CacheDir() {
  if (const char* dir = std::getenv("LUTRA_CACHE_DIR")) return dir;
  if (const char* dir = std::getenv("XDG_CACHE_HOME"); dir != nullptr && *dir != 0)
    return std::string(dir) + "/lutra";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0)
    return std::string(home) + "/.cache/lutra";
  return "";
}

std::optional<Roofline> CachedRoofline(const std::string& dir, const std::string& cpu, int threads,
                                       int64_t now, int64_t max_age_s) {
  if (dir.empty()) return std::nullopt;
  auto r = RooflineFromJson(FileText(CacheFile(dir, cpu, threads)));
  if (!r || r->cpu != cpu || r->threads != threads || now - r->measured_at > max_age_s ||
      r->measured_at > now + 60)
    return std::nullopt;
  return r;
}

bool KeepRoofline(const std::string& dir, const Roofline& r) {
  if (dir.empty()) return false;
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  const std::string path = CacheFile(dir, r.cpu, r.threads);
  const std::string part =
      path + Format(".%lld", static_cast<long long>(Clock::now().time_since_epoch().count()));
  {
    std::ofstream out(part);
    out << RooflineToJson(r);
    if (!out.flush()) return false;
  }
  std::filesystem::rename(part, path, error);
  if (error) std::filesystem::remove(part, error);
  return !error;
}

Roofline FindRoofline(int threads, bool fresh,
                      const std::function<void(const std::string&)>& progress) {
  const std::string dir = CacheDir();
  std::optional<Roofline> kept;
  if (!fresh) kept = CachedRoofline(dir, CpuName(), threads, std::time(nullptr), kRooflineMaxAge);
  if (kept &&
      (kept->noise.empty() || std::time(nullptr) - kept->measured_at <= kNoisyRooflineMaxAge))
    return *kept;
  Roofline r = MeasureRoofline(threads, progress);
  if (kept) r = BestOf(r, *kept);
  KeepRoofline(dir, r);
  return r;
}

std::string CpuName(const std::string& root) {
  std::ifstream in(root + "/proc/cpuinfo");
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind("model name", 0) == 0)
      return line.substr(std::min(line.size(), line.find(": ") + 2));
  }
  return "unknown";
}

std::string AgeText(int64_t s) {
  const auto text = [](int64_t n, const char* unit) {
    return Format("%lld %s%s", static_cast<long long>(n), unit, n == 1 ? "" : "s");
  };
  if (s < 120) return text(std::max<int64_t>(0, s), "second");
  if (s < 7200) return text(s / 60, "minute");
  if (s < 2 * 86400) return text(s / 3600, "hour");
  return text(s / 86400, "day");
}

}  // namespace lutra::bench
