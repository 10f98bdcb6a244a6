// Perplexity of a text: e^(mean negative log likelihood of its tokens).
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "engine/eval_windows.h"

namespace lutra {

class LogitsFileWriter;

// A mean with its standard error.
struct Estimate {
  double value = 0, error = 0;
};
// Of n values from their sum and sum of squares; the error is 0 for fewer than 2.
Estimate MeanOf(double sum, double sum_of_squares, size_t n);

// Negative log likelihoods (natural), added in the order of the text.
struct NllSum {
  double sum = 0, sum2 = 0;
  size_t n = 0;
  void Add(double nll) {
    sum += nll;
    sum2 += nll * nll;
    ++n;
  }
  Estimate Mean() const { return MeanOf(sum, sum2, n); }
  Estimate Perplexity() const;  // the error to first order
};

struct PerplexityResult {
  NllSum nll;
  size_t n_windows = 0;  // measured
  bool complete = true;  // false if progress stopped it
};
// After each window, on the calling thread; false stops.
using PerplexityProgress = std::function<bool(const PerplexityResult& so_far, size_t n_windows)>;

// Measures all windows. The engine wants ForEvaluation's options (with others it works in smaller steps). Threads share the
// tokens; the result does not depend on how many they are nor on the batch size. With a writer, the log probabilities go to it,
// too. Throws Error(kCorrupt) if logits are not numbers, and what the writer throws.
PerplexityResult MeasurePerplexity(Engine& engine, const EvalWindows& windows,
                                   const PerplexityProgress& progress = {},
                                   LogitsFileWriter* writer = nullptr);

// One window's part of it: nll[pos - scored_begin] for the positions of [pos, pos + n) that are scored, whose logits the runner holds from 0
// on. The pool's threads share them. Throws as MeasurePerplexity.
void ScorePositions(const WindowRunner& runner, const EvalWindows& windows, size_t window,
                    size_t pos, size_t n, std::span<double> nll,
                    LogitsFileWriter* writer = nullptr);

// Throws Error(kCorrupt) naming the model file and the place, for logits that are NaN or infinite.
[[noreturn]] void FailNotFinite(const Engine& engine, size_t window, size_t pos);

}  // namespace lutra
