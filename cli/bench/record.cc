#include "cli/bench/record.h"

#include <cmath>

#include <cli/bench/build_info.h>  // made by cli/bench/build_info.cmake
#include "cli/bench/stats.h"
#include "kernels/base/error.h"

namespace lutra::bench {
namespace {

using Value = std::optional<std::string>;
using R = const BenchRecord&;

std::string Int(uint64_t v) { return std::to_string(v); }
std::string Float(double v) { return Format("%.6f", v); }

std::vector<double> Doubles(const std::vector<uint64_t>& values) {
  return {values.begin(), values.end()};
}

// A quantile of times in nanoseconds, as milliseconds.
Value Ms(const std::vector<uint64_t>& ns, double q) {
  return ns.empty() ? std::nullopt : Value(Float(Quantile(Doubles(ns), q) / 1e6));
}
Value PerToken(R r, double total) {
  return r.n_tokens() > 0 ? Value(Float(total / r.n_tokens())) : std::nullopt;
}
Value PerSecond(R r, double total) {
  return r.median_seconds() > 0 ? Value(Float(total / r.median_seconds())) : std::nullopt;
}

constexpr auto kS = ColumnType::kString;
constexpr auto kI = ColumnType::kInt;
constexpr auto kF = ColumnType::kFloat;
constexpr auto kB = ColumnType::kBool;

// Columns of llama-bench that mean nothing here hold its defaults, so that its comparison script can join our rows with its own.
constexpr Column kColumns[] = {
    {"build_commit", kS, [](R) -> Value { return BuildCommit(); }},
    {"build_number", kI, [](R) -> Value { return std::to_string(BuildNumber()); }},
    {"cpu_info", kS, [](R r) -> Value { return r.cpu_info; }},
    {"gpu_info", kS, [](R) -> Value { return ""; }},
    {"backends", kS, [](R) -> Value { return "CPU"; }},
    {"model_filename", kS, [](R r) -> Value { return r.model_filename; }},
    {"model_type", kS, [](R r) -> Value { return r.model_type; }},
    {"model_size", kI, [](R r) -> Value { return Int(r.model_size); }},
    {"model_n_params", kI, [](R r) -> Value { return Int(r.model_n_params); }},
    {"n_batch", kI, [](R r) -> Value { return std::to_string(r.spec.n_batch); }},
    {"n_ubatch", kI, [](R r) -> Value { return std::to_string(r.spec.n_ubatch); }},
    {"n_threads", kI, [](R r) -> Value { return std::to_string(r.spec.n_threads); }},
    {"cpu_mask", kS, [](R) -> Value { return "0x0"; }},
    {"cpu_strict", kB, [](R) -> Value { return "0"; }},
    {"poll", kI, [](R) -> Value { return "50"; }},
    {"type_k", kS, [](R r) -> Value { return r.spec.type_k; }},
    {"type_v", kS, [](R r) -> Value { return r.spec.type_v; }},
    {"n_gpu_layers", kI, [](R) -> Value { return "-1"; }},
    {"n_cpu_moe", kI, [](R) -> Value { return "0"; }},
    {"split_mode", kS, [](R) -> Value { return "layer"; }},
    {"main_gpu", kI, [](R) -> Value { return "0"; }},
    {"no_kv_offload", kB, [](R) -> Value { return "0"; }},
    {"flash_attn", kI, [](R) -> Value { return "-1"; }},
    {"devices", kS, [](R) -> Value { return "auto"; }},
    {"tensor_split", kS, [](R) -> Value { return "0.00"; }},
    {"tensor_buft_overrides", kS, [](R) -> Value { return "none"; }},
    {"load_mode", kS, [](R) -> Value { return "mmap"; }},
    {"embeddings", kB, [](R) -> Value { return "0"; }},
    {"no_op_offload", kI, [](R) -> Value { return "0"; }},
    {"no_host", kB, [](R) -> Value { return "0"; }},
    {"fit_target", kI, [](R) -> Value { return "0"; }},
    {"fit_min_ctx", kI, [](R) -> Value { return "0"; }},
    {"n_prompt", kI, [](R r) -> Value { return std::to_string(r.spec.n_prompt); }},
    {"n_gen", kI, [](R r) -> Value { return std::to_string(r.spec.n_gen); }},
    {"n_depth", kI, [](R r) -> Value { return std::to_string(r.spec.n_depth); }},
    {"test_time", kS, [](R r) -> Value { return r.test_time; }},
    {"avg_ns", kI,
     [](R r) -> Value { return Int(static_cast<uint64_t>(Mean(Doubles(r.samples_ns)))); }},
    {"stddev_ns", kI,
     [](R r) -> Value {
       return Int(static_cast<uint64_t>(StandardDeviation(Doubles(r.samples_ns))));
     }},
    {"avg_ts", kF, [](R r) -> Value { return Float(Mean(r.samples_ts())); }},
    {"stddev_ts", kF, [](R r) -> Value { return Float(StandardDeviation(r.samples_ts())); }},
    // Ours.
    {"ttft_ms", kF, [](R r) -> Value { return Ms(r.prompt_ns, 0.5); }},
    {"itl_p50_ms", kF, [](R r) -> Value { return Ms(r.token_ns, 0.5); }},
    {"itl_p95_ms", kF, [](R r) -> Value { return Ms(r.token_ns, 0.95); }},
    {"itl_p99_ms", kF, [](R r) -> Value { return Ms(r.token_ns, 0.99); }},
    {"bytes_per_token", kF, [](R r) -> Value { return PerToken(r, r.work.bytes()); }},
    {"gbps", kF, [](R r) -> Value { return PerSecond(r, r.work.bytes() / 1e9); }},
    {"bw_peak_gbps", kF,
     [](R r) -> Value {
       return r.roofline ? Value(Float(r.roofline->bandwidth_gbps())) : std::nullopt;
     }},
    {"ops_per_token", kF, [](R r) -> Value { return PerToken(r, r.work.ops()); }},
    {"tops", kF, [](R r) -> Value { return PerSecond(r, r.work.ops() / 1e12); }},
    {"pct_roofline", kF,
     [](R r) -> Value {
       const auto v = r.percent_of_roofline();
       return v ? Value(Float(*v)) : std::nullopt;
     }},
    {"rss_peak_mib", kF,
     [](R r) -> Value { return r.rss_peak_mib > 0 ? Value(Float(r.rss_peak_mib)) : std::nullopt; }},
    {"simd_target", kS, [](R r) -> Value { return r.simd_target; }},
    {"load_ms", kF, [](R r) -> Value { return Float(r.load_ms); }},
    {"joules_per_token", kF,
     [](R r) -> Value {
       const double n = static_cast<double>(r.samples_ns.size()) * r.n_tokens();
       return r.joules && n > 0 ? Value(Float(*r.joules / n)) : std::nullopt;
     }},
    {"median_ts", kF, [](R r) -> Value { return Float(Median(r.samples_ts())); }},
    {"spread_ts", kF, [](R r) -> Value { return Float(RobustSpread(r.samples_ts())); }},
    {"int8_peak_tops", kF,
     [](R r) -> Value {
       return r.roofline ? Value(Float(r.roofline->best_gops(PeakKind::kInt8) / 1e3))
                         : std::nullopt;
     }},
    {"noise", kS, [](R r) -> Value { return r.noise; }},
};

}  // namespace

std::string TestName(const TestSpec& s) {
  std::string name;
  if (s.n_prompt > 0) name += "pp" + std::to_string(s.n_prompt);
  if (s.n_prompt > 0 && s.n_gen > 0) name += "+";
  if (s.n_gen > 0) name += "tg" + std::to_string(s.n_gen);
  if (s.n_depth > 0) name += " @ d" + std::to_string(s.n_depth);
  return name;
}

std::vector<double> BenchRecord::samples_ts() const {
  std::vector<double> ts;
  for (const uint64_t ns : samples_ns)
    ts.push_back(1e9 * (spec.n_prompt + spec.n_gen) / static_cast<double>(ns));
  return ts;
}

double BenchRecord::median_seconds() const { return Median(Doubles(samples_ns)) / 1e9; }

std::optional<double> BenchRecord::percent_of_roofline() const {
  if (!roofline || median_seconds() <= 0) return std::nullopt;
  return 100 * LeastSeconds(work, *roofline) / median_seconds();
}

std::span<const Column> Columns() { return kColumns; }

const char* BuildCommit() { return LUTRA_BUILD_COMMIT; }
int BuildNumber() { return LUTRA_BUILD_NUMBER; }

}  // namespace lutra::bench
