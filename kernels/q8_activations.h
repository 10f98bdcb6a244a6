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

// Tokens are stored in *tiles* of 8, then one of 4 if at least 4 are left, then tiles of 1; inside a tile of T tokens everything is
// interleaved token by token, so that a kernel walks one pointer. With s the first token of the tile and t the token in it:
//   q             4-byte quads  [n_cols / 4][T]   from byte s * n_cols
//   d             floats        [n_cols / unit][T] from element s * (n_cols / unit)
//   minus_sum16   int32         [n_cols / 16][T]   from element s * (n_cols / 16);   -(sum of 16 q)
//   minus_sum32   int32         [n_cols / 32][T]   likewise
struct Q8View {
  const int8_t* q;
  const float* d;
  const int32_t* minus_sum16;
  const int32_t* minus_sum32;
  size_t n_cols;
  size_t unit;      // 256 or 32
  size_t n_tokens;
};

inline constexpr size_t kTileTokens = 8;

// Size of the tile that begins at token `begin` of n_tokens.
constexpr size_t TileSize(size_t begin, size_t n_tokens) {
  const size_t left = n_tokens - begin;
  return left >= 8 ? 8 : left >= 4 ? 4 : 1;
}
// First token of the tile that holds `token`.
constexpr size_t TileBegin(size_t token, size_t n_tokens) {
  const size_t whole = n_tokens / 8 * 8;
  if (token < whole) return token / 8 * 8;
  return n_tokens - whole >= 4 && token < whole + 4 ? whole : token;
}

// Owner, sized once for the largest use.
class Q8Activations {
 public:
  Q8Activations(size_t max_tokens, size_t max_cols);
  // Declares the shape of what follows; n_cols must be a multiple of 32 (of 256 for kQ8x256).
  void Reshape(Activations kind, size_t n_tokens, size_t n_cols);
  // Quantizes x [n_cols] as row `token`. Different tokens may be written concurrently.
  void SetRow(size_t token, const float* x);
  Q8View view() const;

 private:
  size_t max_tokens_, max_cols_;
  size_t n_tokens_ = 0, n_cols_ = 0, unit_ = 256;
  AlignedArray<int8_t> q_;
  AlignedArray<float> d_;
  AlignedArray<int32_t> minus_sum16_, minus_sum32_;
};

// One row, SIMD. Outputs as in a Q8View of one token.
void QuantizeRow(const float* x, size_t n, size_t unit, int8_t* q, float* d, int32_t* minus_sum16,
                 int32_t* minus_sum32);
// The definition, scalar.
void QuantizeRowReference(const float* x, size_t n, size_t unit, int8_t* q, float* d,
                          int32_t* minus_sum16, int32_t* minus_sum32);

}  // namespace lutra
