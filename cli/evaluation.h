// What commands that run a model over a text share.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "cli/model_options.h"
#include "engine/eval_windows.h"

namespace lutra::cli {

// An engine for windows of n_ctx tokens; batches are no longer than that.
std::unique_ptr<Engine> LoadForEvaluation(ModelOptions model, uint32_t n_ctx);

// "256095 tokens, 500 chunks of 512, 255 tokens scored in each", unless quiet.
void SayWindows(const ModelOptions& model, const EvalWindows& windows);

// The time left, on one line of stderr where that is a terminal: "[12/500] 3.1 s a chunk, 25 min left".
class ProgressLine {
 public:
  explicit ProgressLine(bool quiet);
  ~ProgressLine() { Clear(); }
  void Clear();
  void Update(size_t done, size_t total);

 private:
  const bool on_;
  bool drawn_ = false;
  const std::chrono::steady_clock::time_point start_;
};

}  // namespace lutra::cli
