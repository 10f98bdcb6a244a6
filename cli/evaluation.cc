#include "cli/evaluation.h"

#include <cstdio>

#include "kernels/base/error.h"

namespace lutra::cli {

std::unique_ptr<Engine> LoadForEvaluation(ModelOptions model, uint32_t n_ctx) {
  EngineOptions engine;
  engine.batch_tokens = model.batch;
  engine = ForEvaluation(engine, n_ctx);
  model.n_ctx = engine.n_ctx;
  model.batch = engine.batch_tokens;
  return LoadEngine(model, engine);
}

EvalWindows WindowsOf(const std::string& text, const GgufFile& model, uint32_t n_ctx,
                      int64_t chunks) {
  return EvalWindows::FromText(*Tokenizer::FromGguf(model), text, {n_ctx, chunks});
}

void SayWindows(const ModelOptions& model, const EvalWindows& windows) {
  if (model.quiet) return;
  std::fprintf(stderr, "%zu tokens, %zu chunks of %u, %zu tokens scored in each\n",
               windows.tokens().size(), windows.size(), windows.n_ctx(), windows.n_scored());
}

std::string ChunksText(const ProgressLine& line, size_t done, size_t total) {
  const double each = line.Seconds() / static_cast<double>(done);
  return Format(
      "[%zu/%zu] %.2f s a chunk, %s left", done, total, each,
      TimeLeft(line.Seconds(), static_cast<double>(done), static_cast<double>(total)).c_str());
}

}  // namespace lutra::cli
