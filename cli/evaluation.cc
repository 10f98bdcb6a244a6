#include "cli/evaluation.h"

#include <unistd.h>

#include <cstdio>

namespace lutra::cli {

std::unique_ptr<Engine> LoadForEvaluation(ModelOptions model, uint32_t n_ctx) {
  EngineOptions engine;
  engine.batch_tokens = model.batch;
  engine = ForEvaluation(engine, n_ctx);
  model.n_ctx = engine.n_ctx;
  model.batch = engine.batch_tokens;
  return LoadEngine(model, engine);
}

void SayWindows(const ModelOptions& model, const EvalWindows& windows) {
  if (model.quiet) return;
  std::fprintf(stderr, "%zu tokens, %zu chunks of %u, %zu tokens scored in each\n", windows.tokens().size(), windows.size(),
               windows.n_ctx(), windows.n_scored());
}

ProgressLine::ProgressLine(bool quiet)
    : on_(!quiet && isatty(STDERR_FILENO)), start_(std::chrono::steady_clock::now()) {}

void ProgressLine::Clear() {
  if (drawn_) std::fprintf(stderr, "\r\033[K");
  drawn_ = false;
}

void ProgressLine::Update(size_t done, size_t total) {
  if (!on_) return;
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double each = elapsed / static_cast<double>(done);
  const double left = each * static_cast<double>(total - done);
  std::fprintf(stderr, "\r\033[K[%zu/%zu] %.2f s a chunk, %.0f %s left", done, total, each, left < 120 ? left : left / 60,
               left < 120 ? "s" : "min");
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace lutra::cli
