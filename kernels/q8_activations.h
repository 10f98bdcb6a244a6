// Quantized activations: the other operand of every integer-exact product.
//
// A row x[0, n) is cut into units of 256 (or 32) values; each becomes int8 q[k] and one float scale d:
//   amax = max |x|;  d = amax / 127;  q[k] = x[k] * (127 / amax) rounded to nearest, ties to even.
// amax < 2^-100 gives d = 0 and q = 0. A unit with an infinity or a NaN gives d = NaN and q = 0: the result is NaN, visibly.
// QuantizeRowReference is the definition; the SIMD form gives the same bits on every target.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/aligned.h"
#include "kernels/quant_format.h"

namespace lutra {

// A view of n_tokens quantized rows. Sums are negated because that is the form in which products use them.
struct Q8View {
  const int8_t* q;               // [n_tokens, n_cols]
  const float* d;                // [n_tokens, n_cols / unit]
  const int32_t* minus_sum16;    // [n_tokens, n_cols / 16]: -(sum of 16 q)
  const int32_t* minus_sum32;    // [n_tokens, n_cols / 32]
  size_t n_cols;
  size_t unit;                   // 256 or 32
};

// Owner, sized once for the largest use.
class Q8Activations {
 public:
  Q8Activations(size_t max_tokens, size_t max_cols);
  // Declares the shape of what follows; n_cols must be a multiple of 32 (of 256 for kQ8x256).
  void Reshape(Activations kind, size_t n_cols);
  // Quantizes x [n_cols] as row `token`. Different tokens may be written concurrently.
  void SetRow(size_t token, const float* x);
  Q8View view() const;

 private:
  size_t max_tokens_, max_cols_;
  size_t n_cols_ = 0, unit_ = 256;
  AlignedArray<int8_t> q_;
  AlignedArray<float> d_;
  AlignedArray<int32_t> minus_sum16_, minus_sum32_;
};

// One row, SIMD. Outputs as in Q8View, for one token.
void QuantizeRow(const float* x, size_t n, size_t unit, int8_t* q, float* d, int32_t* minus_sum16,
                 int32_t* minus_sum32);
// The definition, scalar.
void QuantizeRowReference(const float* x, size_t n, size_t unit, int8_t* q, float* d,
                          int32_t* minus_sum16, int32_t* minus_sum32);

}  // namespace lutra
