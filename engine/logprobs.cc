#include "engine/logprobs.h"

#include <algorithm>
#include <cfloat>
#include <limits>

#include "engine/candidates.h"
#include "engine/float_math.h"

namespace lutra {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

}  // namespace

double LogSumExp(std::span<const float> logits) {
  float max = kNegInf;
  for (const float x : logits) max = x > max ? x : max;
  if (max == kNegInf) return -std::numeric_limits<double>::infinity();
  max = ClampLogit(max);
  const double sum = SumExpDifferences(max, logits.data(), logits.size());
  return static_cast<double>(max) + Log(sum);
}

TokenLogprob LogprobOf(std::span<const float> logits, double log_sum_exp, int32_t id) {
  const float x = logits[static_cast<size_t>(id)];
  if (!IsCandidateLogit(x)) return {id, kNegInf};
  return {id, static_cast<float>(static_cast<double>(ClampLogit(x)) - log_sum_exp)};
}

size_t TopLogprobs(std::span<const float> logits, double log_sum_exp,
                   std::span<TokenLogprob> best) {
  if (best.empty()) return 0;
  // Insertion into the sorted front; logits are held in `logprob` until the end.
  size_t n = 0;
  float bound = kNegInf;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > bound)) continue;
    const float x = ClampLogit(logits[i]);
    if (n == best.size() && !(x > best[n - 1].logprob)) continue;
    size_t at = n < best.size() ? n++ : n - 1;
    for (; at > 0 && best[at - 1].logprob < x; --at) best[at] = best[at - 1];
    best[at] = {static_cast<int32_t>(i), x};
    if (n == best.size()) bound = best[n - 1].logprob;
  }
  for (size_t i = 0; i < n; ++i) best[i] = LogprobOf(logits, log_sum_exp, best[i].id);
  return n;
}

}  // namespace lutra
