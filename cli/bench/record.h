// One measured test, and the columns it is printed as.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/bench/roofline.h"
#include "models/work.h"

namespace lutra::bench {

// What is measured.
struct TestSpec {
  int n_prompt = 0, n_gen = 0, n_depth = 0;
  int n_batch = 2048, n_ubatch = 512, n_threads = 1;
  std::string type_k = "f16", type_v = "f16";  // as asked for
};
// "pp512", "tg128", "pp512+tg128", each with " @ d4096" at a depth.
std::string TestName(const TestSpec& spec);

struct BenchRecord {
  std::string model_filename, model_type;
  uint64_t model_size = 0, model_n_params = 0;  // bytes and weights of all tensors
  TestSpec spec;
  std::string cpu_info, test_time;
  std::vector<uint64_t> samples_ns;  // one a repetition

  // n_prompt + n_gen tokens a second, of each repetition.
  std::vector<double> samples_ts() const;

  std::string simd_target;
  double load_ms = 0;

  std::vector<uint64_t>
      prompt_ns;  // of each repetition of a test with a prompt: until its last logits are there
  std::vector<uint64_t> token_ns;  // of each generated token of all repetitions
  Work work;                       // of one repetition
  std::optional<Roofline> roofline;
  double rss_peak_mib = 0;
  std::optional<double> joules;  // of all repetitions
  std::string noise;             // what disturbed it, or ""

  int n_tokens() const { return spec.n_prompt + spec.n_gen; }
  double median_seconds() const;
  // Share of the machine's limit, in percent; nullopt without a roofline.
  std::optional<double> percent_of_roofline() const;
};

enum class ColumnType { kString, kInt, kFloat, kBool };
struct Column {
  const char* name;
  ColumnType type;
  // nullopt: not known, or does not apply. Booleans are "0" and "1".
  std::optional<std::string> (*value)(const BenchRecord& record);
};
// llama-bench's columns in its order, then ours.
std::span<const Column> Columns();

// "1a2b3c4d" and the number of commits before, of the source tree this was built from; "unknown" and 0 outside one.
const char* BuildCommit();
int BuildNumber();

}  // namespace lutra::bench
