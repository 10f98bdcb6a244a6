#include "engine/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/float_math.h"
#include "engine/logits_file.h"
#include "kernels/base/error.h"
#include "kernels/log_softmax.h"

namespace lutra {

Estimate MeanOf(double sum, double sum_of_squares, size_t n) {
  if (n == 0) return {};
  const double count = static_cast<double>(n);
  const double mean = sum / count;
  const double variance = sum_of_squares / count - mean * mean;
  return {mean, n >= 2 && variance > 0 ? std::sqrt(variance / (count - 1)) : 0.0};
}

Estimate NllSum::Perplexity() const {
  const Estimate mean = Mean();
  const double perplexity = Exp(mean.value);
  return {perplexity, perplexity * mean.error};
}

void FailNotFinite(const Engine& engine, size_t window, size_t pos) {
  Fail(ErrorCode::kCorrupt,
       "%s: the logits after token %zu of chunk %zu are not numbers: the weights hold NaN or "
       "infinity, or activations overflow",
       Printable(engine.model().file().path(), 400).c_str(), pos + 1, window + 1);
}

void ScorePositions(const WindowRunner& runner, const EvalWindows& windows, size_t window,
                    size_t pos, size_t n, std::span<double> nll, LogitsFileWriter* writer) {
  const size_t begin = std::max<size_t>(pos, windows.scored_begin());
  const size_t end = std::min<size_t>(pos + n, windows.scored_end());
  if (begin >= end) return;
  ThreadPool& pool = runner.engine().pool();
  pool.Region([&] {
    pool.For(end - begin, [&](size_t i) {
      const std::span<const float> logits = runner.logits(begin + i - pos);
      const ExpSum sum = SumExp(logits.data(), logits.size());
      const double log_sum = Log(sum.sum);
      const float x = logits[static_cast<size_t>(windows.target(window, begin + i))];
      const size_t slot = begin + i - windows.scored_begin();
      nll[slot] = static_cast<double>(sum.max) + log_sum - static_cast<double>(x);
      if (writer != nullptr) writer->Encode(slot, logits, sum, log_sum);
    });
  });
  for (size_t at = begin; at < end; ++at) {
    if (!std::isfinite(nll[at - windows.scored_begin()]))
      FailNotFinite(runner.engine(), window, at);
  }
}

PerplexityResult MeasurePerplexity(Engine& engine, const EvalWindows& windows,
                                   const PerplexityProgress& progress, LogitsFileWriter* writer) {
  WindowRunner runner(engine, windows.n_ctx());
  WindowRunner* const runners[] = {&runner};
  PerplexityResult result;
  std::vector<double> nll(windows.n_scored());
  result.complete = RunWindows(
      runners, windows, WindowPass::ForScores(windows),
      [&](size_t w, size_t pos, size_t n) {
        ScorePositions(runner, windows, w, pos, n, nll, writer);
      },
      [&](size_t) {
        for (const double v : nll) result.nll.Add(v);
        if (writer != nullptr) writer->WriteWindow();
        ++result.n_windows;
        return !progress || progress(result, windows.size());
      });
  return result;
}

}  // namespace lutra
