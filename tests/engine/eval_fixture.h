// Tiny models and tokens for the tests of measuring.
#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/eval_windows.h"
#include "engine/session.h"
#include "tests/models/gguf_check.h"
#include "tests/models/tiny_model.h"

namespace lutra::testing {

// Engines of tiny random models, in files of their own.
class EvalFixture {
 public:
  std::unique_ptr<Engine> Make(const TinySpec& spec, uint32_t n_ctx, int threads = 1,
                               uint32_t batch = 512, uint64_t logits_bytes = kEvalLogitsBytes) {
    const std::string path = folder / ("tiny" + std::to_string(n_files_++) + ".gguf");
    BuildTiny(spec).WriteFile(path);
    EngineOptions options;
    options.model_path = path;
    options.threads = threads;
    options.batch_tokens = batch;
    options.need_tokenizer = false;
    options = ForEvaluation(options, n_ctx);
    options.batch_logits_bytes = logits_bytes;
    return std::make_unique<Engine>(options);
  }
  TemporaryFolder folder;

 private:
  int n_files_ = 0;
};

inline std::vector<int32_t> EvalIds(size_t n, unsigned seed = 1, uint32_t n_vocab = 48) {
  std::mt19937 rng(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % n_vocab);
  return ids;
}

// ln softmax of the logits after ids, in double, through a session fed token by token.
inline std::vector<std::vector<double>> NaiveLogProbs(Engine& engine,
                                                      std::span<const int32_t> ids) {
  Session session(engine);
  std::vector<std::vector<double>> rows;
  for (const int32_t id : ids) {
    const std::span<const float> logits = session.Feed({&id, 1});
    long double sum = 0;
    for (const float x : logits) sum += std::exp(static_cast<long double>(x));
    const double lse = static_cast<double>(std::log(sum));
    std::vector<double> row;
    for (const float x : logits) row.push_back(static_cast<double>(x) - lse);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace lutra::testing
