// `--prefill fast` on AMX tiles: many tokens x rows of F16 or BF16, with both rounded to bf16 (to nearest, ties to even; BF16 rows are
// taken as they are) and multiplied by TDPBF16PS. Not exact: an operand's error is at most 2^-9 of the distance of powers of two
// around it, products are summed in float. y[token, row] is
//   for each 32 columns, in order:  y += even + odd,   even (odd) = fma(w[k], x[k], even) over the even (odd) k, in order
// with denormal numbers taken for zero. So results depend neither on threads nor on the rows and tokens beside them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/aligned.h"

namespace lutra {

// Activations as B tiles [16 pairs of columns][16 tokens][2], [n_blocks][n_tiles][8 tiles of 32 columns]; tokens and columns behind the last are
// zero up to the end of their tile.
struct Bf16View {
  const uint16_t* tiles;
  size_t n_cols, n_tokens;

  size_t n_blocks() const { return (n_cols + kBlockCols - 1) / kBlockCols; }
  size_t n_tiles() const { return (n_tokens + kTileTokens - 1) / kTileTokens; }
  static constexpr size_t kBlockCols = 256, kTileTokens = 16;
};

// Owner, sized once for the largest use; sizes of 0: none.
class Bf16Activations {
 public:
  Bf16Activations(size_t max_tokens, size_t max_cols);
  bool empty() const { return tiles_.empty(); }
  // Declares the shape of what follows.
  void Reshape(size_t n_tokens, size_t n_cols);
  // Rounds one of the view's n_blocks() * n_tiles() parts of x [n_tokens, n_cols], x_stride floats a token. Different parts may be written
  // concurrently.
  void SetPart(size_t part, const float* x, size_t x_stride);
  Bf16View view() const { return {tiles_.data(), n_cols_, n_tokens_}; }
  // Bytes an owner of that size takes.
  static size_t PlannedBytes(size_t max_tokens, size_t max_cols);

 private:
  AlignedArray<uint16_t> tiles_;
  size_t n_tokens_ = 0, n_cols_ = 0;
};

// Rows [row_begin, row_end) of w [n_rows, x.n_cols] for all tokens of x; y_stride floats a token.
using Bf16MatMulFn = void (*)(const uint8_t* w, size_t row_begin, size_t row_end, const Bf16View& x,
                              float* y, size_t y_stride);

// The product of a type for more than kTileMinTokens tokens (kernels/amx_matmul.h) if the SIMD choice in use has tiles for bf16, else
// nullptr; nullptr for types but F16 and BF16. It likes 128 rows at a time.
Bf16MatMulFn FindTileBf16MatMul(uint32_t type_id);

// nullptr if the type is another or the build has no such code. On tiles: only where CpuHasAmxInt8() and CpuAmx().bf16. Both: only where AVX3_DL is.
Bf16MatMulFn FindAmxBf16MatMul(uint32_t type_id, bool emulated);

}  // namespace lutra
