// How far a model is from a reference on a text: Kullback-Leibler divergence of the next token's distribution, perplexity ratio,
// agreement of the most probable token, change of the right token's probability. The names and formulas of the statistics are those
// of llama.cpp's perplexity tool.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "engine/eval_windows.h"
#include "engine/logits_file.h"
#include "engine/perplexity.h"

namespace lutra {

// One scored position. Natural logarithms.
struct TokenComparison {
  double nll, nll_reference;  // of the token that follows
  double kld;                 // KL(reference || tested) of the distributions
  bool same_top;              // both think the same token most probable (of equals the lower id)
};

// The median is percentile 50.
inline constexpr std::array<double, 9> kKldPercentiles = {99.9, 99, 95, 90, 50, 10, 5, 1, 0.1};
inline constexpr std::array<double, 11> kDeltaPercentiles = {99.9, 99, 95, 90, 75, 50,
                                                             25,   10, 5,  1,  0.1};

struct KlReport {
  size_t n_tokens = 0, n_windows = 0;
  bool complete = true;  // false if progress stopped it
  Estimate perplexity, reference_perplexity;
  Estimate ln_ratio, ratio,
      difference;  // of the tested perplexity to / from the reference's; errors of the paired difference
  double correlation = 0;  // of the two ln perplexities; 1 at best
  Estimate kld;
  double kld_min = 0, kld_max = 0;
  std::array<double, kKldPercentiles.size()> kld_percentiles{};
  // p of the right token, tested minus reference, in [-1, 1].
  Estimate delta_p, delta_p_rms;
  double delta_p_min = 0, delta_p_max = 0;
  std::array<double, kDeltaPercentiles.size()> delta_p_percentiles{};
  Estimate same_top;  // share of positions, in [0, 1]
};

// Collects comparisons in the order of the text. Not thread-safe.
class KlDivergence {
 public:
  void Add(const TokenComparison& t);
  void EndWindow() { ++n_windows_; }
  // Perplexities, means and shares: quick, at any time. Percentiles, minima and maxima stay 0.
  KlReport Means() const;
  // Everything; sorts copies.
  KlReport Report() const;

 private:
  std::vector<double> kld_, delta_p_;
  NllSum nll_, reference_;
  double sum_both_ = 0, sum_kld_ = 0, sum_kld2_ = 0, sum_delta_ = 0, sum_delta2_ = 0,
         sum_delta4_ = 0;
  size_t n_same_top_ = 0, n_windows_ = 0;
};

// After each window, on the calling thread; false stops.
using KlProgress =
    std::function<bool(const KlDivergence& so_far, size_t windows_done, size_t n_windows)>;

// Runs both models over the windows side by side: exact distributions, no file. Both engines want ForEvaluation's options. Results do not
// depend on threads or batches; a model compared with itself gives a divergence of exactly 0. Throws Error(kInvalidArgument) if
// their vocabularies have different sizes, kCorrupt if logits are not numbers.
KlReport CompareModels(Engine& reference, Engine& tested, const EvalWindows& windows,
                       const KlProgress& progress = {});

// The same between a model and itself with another type of KV cache: the weights are in memory once.
KlReport CompareKvTypes(Engine& reference, KvType tested, const EvalWindows& windows,
                        const KlProgress& progress = {});

// The same against a file of log probabilities (16 bits: divergences below about 1e-5 are noise). windows: of reference.Windows.
KlReport CompareWithFile(const LogitsFile& reference, Engine& tested, const EvalWindows& windows,
                         const KlProgress& progress = {});

// The block of statistics people know, several lines.
std::string KlReportText(const KlReport& report);

}  // namespace lutra
