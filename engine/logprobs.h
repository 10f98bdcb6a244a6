// Log probabilities of the model's own distribution: softmax of the logits as the model gave them,
// before biases, penalties and temperature. NaN counts as -infinity, +infinity as FLT_MAX. Our own
// exp and log, double sums: the same bits on every machine. Nothing here allocates or throws. Good
// to float precision for logits up to 1e8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lutra {

struct TokenLogprob {
  int32_t id;
  float logprob;  // natural logarithm; -infinity for tokens that cannot occur
};

// ln(sum of e^logit); -infinity if there is no candidate at all.
double LogSumExp(std::span<const float> logits);

// Of one token, 0 <= id < logits.size(), given LogSumExp(logits).
TokenLogprob LogprobOf(std::span<const float> logits, double log_sum_exp, int32_t id);

// Fills `best` with the most probable tokens, best first (equals: lower id), and returns how many
// there are: less than best.size() only if fewer tokens can occur. For small best.size().
size_t TopLogprobs(std::span<const float> logits, double log_sum_exp, std::span<TokenLogprob> best);

}  // namespace lutra
