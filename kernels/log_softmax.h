// Sums over the softmax of whole vocabularies, for perplexity and KL divergence.
//
// Exponentials are float (about 1 ulp), sums double over 16 virtual lanes and a fixed tree: the same bits on every SIMD target.
// None allocates, throws or starts threads; different tokens may be computed concurrently. n >= 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

// log softmax(x)[i] = x[i] - max - ln(sum).
struct ExpSum {
  float max;      // the largest logit, NaN aside
  size_t argmax;  // the first of the largest; 0 if all are NaN
  double
      sum;  // of e^(x[i] - max), in [1, n]; NaN if any logit is NaN or +infinity, or all are -infinity
};
ExpSum SumExp(const float* x, size_t n);

// Sum of e^(a[i] - max_a) * (a[i] - b[i]). Terms of weight 0 (a[i] below max_a - 87, -infinity) are left out.
//   KL(a || b) = SumExpDifference / sum_a + ln(sum_b) - ln(sum_a) + max_b - max_a   with the ExpSums of a and b.
double SumExpDifference(const float* a, float max_a, const float* b, size_t n);

// Log probabilities in 16 bits: log p[i] is about min_log_prob + step * codes[i].
struct LogProbCodes {
  float step, min_log_prob;
};
// The codes of the log softmax of x: the range of the logits, at most 16 below the largest (smaller ones are raised to it), in 65535
// steps, rounded half to even. Source: the logits files of llama.cpp's perplexity tool.
LogProbCodes EncodeLogProbs(const float* x, size_t n, const ExpSum& sum, float log_sum,
                            uint16_t* codes);

// Sum of p * (log p - (x[i] - log_sum_exp)) over the coded log p above -16: KL(coded || softmax x).
double SumCodedDifference(const LogProbCodes& scale, const uint16_t* codes, const float* x,
                          float log_sum_exp, size_t n);

}  // namespace lutra
