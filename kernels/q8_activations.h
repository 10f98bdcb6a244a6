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

// Rows are cut into *blocks* of 256 columns (the last may be narrower, its storage is not), and each block holds all tokens, so that
// a kernel finds any run of tokens at constant distances, and the next block after a long stride:
//   q      int8   [n_blocks][n_tokens][256]
//   d      float  [n_blocks][n_tokens][256 / unit]
//   sums   int16  [n_blocks][n_tokens][16]          sums of 16 q
//   totals int32  [n_blocks][n_tokens]              sums of all q of a row of a block
// kSlackTokens rows behind the last token may be read (kernels compute whole tiles of tokens and drop what is too much).
struct Q8View {
  const int8_t* q;
  const float* d;
  const int16_t* sums;
  const int32_t* totals;
  size_t n_cols;
  size_t unit;  // 256 or 32
  size_t n_tokens;
  bool fast = false;  // many tokens may meet weights requantized to one scale per 256 (SetPrefill)

  size_t n_blocks() const { return (n_cols + kBlockCols - 1) / kBlockCols; }
  static constexpr size_t kBlockCols = 256;
  static constexpr size_t kSlackTokens = 32;
};

// Owner, sized once for the largest use.
class Q8Activations {
 public:
  Q8Activations(size_t max_tokens, size_t max_cols);
  // Declares the shape of what follows; n_cols must be a multiple of 32 (of 256 for kQ8x256).
  void Reshape(Activations kind, size_t n_tokens, size_t n_cols);
  // Quantizes x [n_cols] as row `token`. Different tokens may be written concurrently.
  void SetRow(size_t token, const float* x);
  Q8View view() const;
  // Bytes an owner of that size takes.
  static size_t PlannedBytes(size_t max_tokens, size_t max_cols);

 private:
  size_t max_tokens_, max_cols_;
  size_t n_tokens_ = 0, n_cols_ = 0, unit_ = 256;
  AlignedArray<int8_t> q_;
  AlignedArray<float> d_;
  AlignedArray<int16_t> sums_;
  AlignedArray<int32_t> totals_;
};

// One row of n values, SIMD: q [n], d [n / unit], sums [n / 16].
void QuantizeRow(const float* x, size_t n, size_t unit, int8_t* q, float* d, int16_t* sums);
// The definition, scalar.
void QuantizeRowReference(const float* x, size_t n, size_t unit, int8_t* q, float* d,
                          int16_t* sums);

}  // namespace lutra
