// The machine's limits: measured, kept on disk with their age, and compared with.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/roofline.h"
#include "models/work.h"

namespace lutra::bench {

struct Roofline {
  std::string cpu;  // and threads: what it belongs to
  int threads = 0;
  int64_t measured_at = 0;              // seconds since 1970
  std::string noise;                    // what disturbed the measurement (NoiseText), or ""
  double clock_ghz = 0;                 // of one core
  struct Stream {                       // reading, GB/s
    double cache_1 = 0, cache_n = 0;    // 256 KiB a thread
    double memory_1 = 0, memory_n = 0;  // far more than the caches
  } stream;
  struct Peak {
    std::string name, instruction;
    PeakKind kind;
    double gops_1 = 0, gops_n = 0;  // 10^9 operations a second, two a multiply-add
  };
  std::vector<Peak> peaks;

  double bandwidth_gbps() const { return stream.memory_n; }
  // The best of the kind on all threads, and for kBf16 of the float kinds; 0 if there is none.
  double best_gops(PeakKind kind) const;
};

// About three seconds on all threads. `progress` is told what is measured next.
Roofline MeasureRoofline(int threads, const std::function<void(const std::string&)>& progress = {});

// a with every number raised to that of b, which is of the same machine: a limit seen once is one.
Roofline BestOf(const Roofline& a, const Roofline& b);

// Least seconds the work takes on such a machine, were nothing but one limit in the way.
double LeastSeconds(const Work& work, const Roofline& roofline);

std::string RooflineToJson(const Roofline& r);
// nullopt if it is no such text.
std::optional<Roofline> RooflineFromJson(const std::string& text);

// $LUTRA_CACHE_DIR, else $XDG_CACHE_HOME/lutra, else ~/.cache/lutra; "" if none is known.
std::string CacheDir();
// What was kept in `dir` for this CPU and number of threads, at most max_age_s old. Never throws.
std::optional<Roofline> CachedRoofline(const std::string& dir, const std::string& cpu, int threads,
                                       int64_t now, int64_t max_age_s);
// The limits kept in CacheDir(), if they are recent; else measured, joined with older ones of this machine (BestOf), and kept.
// One measured on a busy machine counts for kNoisyRooflineMaxAge only. `fresh` measures in any case and forgets older ones.
Roofline FindRoofline(int threads, bool fresh,
                      const std::function<void(const std::string&)>& progress = {});

// Keeps it; says whether that worked. Never throws.
bool KeepRoofline(const std::string& dir, const Roofline& r);

// "model name" of /proc/cpuinfo; "unknown".
std::string CpuName(const std::string& root = "");

// "3 minutes", "2 hours", "5 days".
std::string AgeText(int64_t seconds);

inline constexpr int64_t kRooflineMaxAge = 7 * 24 * 3600;
inline constexpr int64_t kNoisyRooflineMaxAge = 10 * 60;

}  // namespace lutra::bench
