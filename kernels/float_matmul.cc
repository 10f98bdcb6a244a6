#include "kernels/weights.h"

#include "kernels/formats/float_formats.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/float_matmul.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"
#include "kernels/float_dots-inl.h"

// Every sum is the one of kernels/float_dots-inl.h, however the work is cut: 16 partial sums, each over its k in ascending order. They may rest
// in memory between blocks of columns, and parts of them (halves where vectors hold eight floats) may be computed one after the other.
HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// ---- Four rows at a time, as they lie, converted on the way. ----

// Tokens of one pass over four rows: the sums of 4 x 6 need 24 registers where a vector holds all 16 partial ones.
constexpr size_t kFewTokens = kLanes == 16 ? 6 : 2;

template <class T, size_t kTokens>
HWY_INLINE void FewTokensTail(const T* w, size_t n_cols, const float* x, size_t x_stride,
                              size_t n_tokens, float* y, size_t y_stride) {
  if constexpr (kTokens > 0) {
    if (n_tokens == kTokens) {
      Dots<T, 4, kTokens>(w, n_cols, x, x_stride, y, y_stride);
    } else {
      FewTokensTail<T, kTokens - 1>(w, n_cols, x, x_stride, n_tokens, y, y_stride);
    }
  }
}

template <class T>
HWY_NOINLINE void FewTokens(const T* w, size_t row_begin, size_t row_end, size_t n_cols,
                            const float* x, size_t x_stride, size_t n_tokens, float* y,
                            size_t y_stride) {
  size_t row = row_begin;
  for (; row + 4 <= row_end; row += 4) {
    for (size_t t = 0; t < n_tokens; t += kFewTokens) {
      FewTokensTail<T, kFewTokens>(w + row * n_cols, n_cols, x + t * x_stride, x_stride,
                                   HWY_MIN(kFewTokens, n_tokens - t), y + t * y_stride + row,
                                   y_stride);
    }
  }
  for (; row < row_end; ++row) {
    for (size_t t = 0; t < n_tokens; ++t) {
      Dots<T, 1, 1>(w + row * n_cols, n_cols, x + t * x_stride, x_stride, y + t * y_stride + row,
                    y_stride);
    }
  }
}

// ---- Blocks of 16 rows x 512 columns, converted once, meet tiles of tokens; both stay in the first cache. ----

constexpr size_t kBlockRows = 16;
constexpr size_t kBlockCols = 512;
constexpr size_t kBlockTokens = 48;  // that share a conversion; their sums are 48 KiB
// 4 x kTileTokens accumulators, the tokens' vectors and one of a row fit the registers: 32 of AVX-512 and NEON, 16 of the others.
constexpr size_t kTileTokens = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM ? 6 : 3;

struct BlockSums {
  HWY_ALIGN float at[kBlockTokens][kBlockRows][16];
};

// Adds n_k columns (a multiple of 16) of kRows rows and kTokens tokens to their sums, or begins them.
template <size_t kRows, size_t kTokens>
HWY_INLINE void Tile(const float* HWY_RESTRICT w, size_t w_stride, const float* HWY_RESTRICT x,
                     size_t x_stride, size_t n_k, bool begin,
                     float (*HWY_RESTRICT sums)[kBlockRows][16], size_t row) {
  for (size_t p = 0; p < kParts; ++p) {
    VF acc[kRows][kTokens];
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      LUTRA_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t) {
        acc[r][t] = begin ? hn::Zero(DF()) : hn::Load(DF(), sums[t][row + r] + p * kLanes);
      }
    }
    for (size_t k = p * kLanes; k < n_k; k += 16) {
      VF xs[kTokens];
      LUTRA_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t) xs[t] = hn::LoadU(DF(), x + t * x_stride + k);
      LUTRA_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        const VF ws = hn::LoadU(DF(), w + r * w_stride + k);
        LUTRA_UNROLL(6)
        for (size_t t = 0; t < kTokens; ++t) acc[r][t] = Fma(ws, xs[t], acc[r][t]);
      }
    }
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      LUTRA_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t)
        hn::Store(acc[r][t], DF(), sums[t][row + r] + p * kLanes);
    }
  }
}

template <size_t kTokens>
HWY_INLINE void TileRows(const float* w, size_t w_stride, size_t n_rows, const float* x,
                         size_t x_stride, size_t n_k, bool begin, float (*sums)[kBlockRows][16]) {
  size_t row = 0;
  for (; row + 4 <= n_rows; row += 4)
    Tile<4, kTokens>(w + row * w_stride, w_stride, x, x_stride, n_k, begin, sums, row);
  for (; row < n_rows; ++row)
    Tile<1, kTokens>(w + row * w_stride, w_stride, x, x_stride, n_k, begin, sums, row);
}

HWY_NOINLINE void TileBlock(const float* w, size_t w_stride, size_t n_rows, const float* x,
                            size_t x_stride, size_t n_tokens, size_t n_k, bool begin,
                            float (*sums)[kBlockRows][16]) {
  size_t t = 0;
  for (; t + kTileTokens <= n_tokens; t += kTileTokens) {
    TileRows<kTileTokens>(w, w_stride, n_rows, x + t * x_stride, x_stride, n_k, begin, sums + t);
  }
  for (; t + 2 <= n_tokens; t += 2)
    TileRows<2>(w, w_stride, n_rows, x + t * x_stride, x_stride, n_k, begin, sums + t);
  for (; t < n_tokens; ++t)
    TileRows<1>(w, w_stride, n_rows, x + t * x_stride, x_stride, n_k, begin, sums + t);
}

template <class T>
HWY_NOINLINE void ManyTokens(const T* w, size_t row_begin, size_t row_end, size_t n_cols,
                             const float* x, size_t x_stride, size_t n_tokens, float* y,
                             size_t y_stride) {
  HWY_ALIGN float block[sizeof(T) == 4 ? 1 : kBlockRows * kBlockCols];
  BlockSums sums;
  const size_t whole = n_cols / 16 * 16;
  for (size_t t = 0; t < n_tokens; t += kBlockTokens) {
    const size_t block_tokens = HWY_MIN(kBlockTokens, n_tokens - t);
    const float* const xt = x + t * x_stride;
    for (size_t row = row_begin; row < row_end; row += kBlockRows) {
      const size_t n_rows = HWY_MIN(kBlockRows, row_end - row);
      const T* const wr = w + row * n_cols;
      for (size_t k = 0; k < whole; k += kBlockCols) {
        const size_t n_k = HWY_MIN(kBlockCols, whole - k);
        if constexpr (sizeof(T) == 4) {
          TileBlock(wr + k, n_cols, n_rows, xt + k, x_stride, block_tokens, n_k, k == 0, sums.at);
        } else {
          for (size_t r = 0; r < n_rows; ++r) {
            const T* const from = wr + r * n_cols + k;
            for (size_t i = 0; i < n_k; i += kLanes)
              hn::Store(LoadWeights(from + i), DF(), block + r * kBlockCols + i);
          }
          TileBlock(block, kBlockCols, n_rows, xt + k, x_stride, block_tokens, n_k, k == 0,
                    sums.at);
        }
      }
      if (whole < n_cols) {  // the last columns, padded with zeros
        const size_t n = n_cols - whole;
        HWY_ALIGN float w_tail[kBlockRows * 16];
        HWY_ALIGN float x_tail[kBlockTokens * 16] = {};
        for (size_t r = 0; r < n_rows; ++r) {
          HWY_ALIGN T padded[16];
          hwy::ZeroBytes<sizeof(padded)>(padded);
          std::memcpy(padded, wr + r * n_cols + whole, n * sizeof(T));
          for (size_t i = 0; i < 16; i += kLanes)
            hn::Store(LoadWeights(padded + i), DF(), w_tail + r * 16 + i);
        }
        for (size_t i = 0; i < block_tokens; ++i)
          std::memcpy(x_tail + i * 16, xt + i * x_stride + whole, n * sizeof(float));
        TileBlock(w_tail, 16, n_rows, x_tail, 16, block_tokens, 16, whole == 0, sums.at);
      }
      for (size_t i = 0; i < block_tokens; ++i) {
        for (size_t r = 0; r < n_rows; ++r) {
          Sum16 s;
          for (size_t p = 0; p < kParts; ++p) s.v[p] = hn::Load(DF(), sums.at[i][r] + p * kLanes);
          y[(t + i) * y_stride + row + r] = Reduce(s);
        }
      }
    }
  }
}

template <class T>
HWY_INLINE void MatMul(const uint8_t* bytes, size_t row_begin, size_t row_end, size_t n_cols,
                       const float* x, size_t x_stride, size_t n_tokens, float* y,
                       size_t y_stride) {
  const T* w = reinterpret_cast<const T*>(bytes);
  // Where the tile of 4 x 6 needs no halves, converting once more is cheaper than keeping sums in memory (4096 columns of F16, 24 tokens, one
  // Zen 5 core: 186 against 160 GFLOP/s) as long as the tokens that share the rows stay in the second cache; halves want blocks (AVX2, 48
  // tokens: 100 against 79) but for a few tokens.
  const size_t together = HWY_MIN(48, 98304 / n_cols / 6 * 6);
  if (kLanes == 16 && together >= 12) {
    for (size_t t = 0; t < n_tokens; t += together) {
      FewTokens<T>(w, row_begin, row_end, n_cols, x + t * x_stride, x_stride,
                   HWY_MIN(together, n_tokens - t), y + t * y_stride, y_stride);
    }
  } else if (n_tokens <= 8) {
    FewTokens<T>(w, row_begin, row_end, n_cols, x, x_stride, n_tokens, y, y_stride);
  } else {
    ManyTokens<T>(w, row_begin, row_end, n_cols, x, x_stride, n_tokens, y, y_stride);
  }
}

void FloatMatMulTarget(uint32_t type_id, const uint8_t* w, size_t row_begin, size_t row_end,
                       size_t n_cols, const float* x, size_t x_stride, size_t token_begin,
                       size_t token_end, float* y, size_t y_stride) {
  const size_t n_tokens = token_end - token_begin;
  x += token_begin * x_stride;
  y += token_begin * y_stride;
  if (type_id == F32::kInfo.type_id) {
    MatMul<float>(w, row_begin, row_end, n_cols, x, x_stride, n_tokens, y, y_stride);
  } else if (type_id == F16::kInfo.type_id) {
    MatMul<hwy::float16_t>(w, row_begin, row_end, n_cols, x, x_stride, n_tokens, y, y_stride);
  } else {
    MatMul<hwy::bfloat16_t>(w, row_begin, row_end, n_cols, x, x_stride, n_tokens, y, y_stride);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
HWY_EXPORT(FloatMatMulTarget);
void FloatMatMul(uint32_t type_id, const uint8_t* w, size_t row_begin, size_t row_end,
                 size_t n_cols, const float* x, size_t x_stride, size_t token_begin,
                 size_t token_end, float* y, size_t y_stride) {
  HWY_DYNAMIC_DISPATCH(FloatMatMulTarget)
  (type_id, w, row_begin, row_end, n_cols, x, x_stride, token_begin, token_end, y, y_stride);
}
}  // namespace lutra
#endif
