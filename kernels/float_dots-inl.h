// Dot products of F32, F16 or BF16 rows with float vectors, per target: weight matrices and keys alike.
#if defined(LUTRA_FLOAT_DOTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_FLOAT_DOTS_INL_H_
#undef LUTRA_FLOAT_DOTS_INL_H_
#else
#define LUTRA_FLOAT_DOTS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstring>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// One real vector of a weight row as float.
HWY_INLINE VF LoadWeights(const float* p) { return hn::LoadU(DF(), p); }
HWY_INLINE VF LoadWeights(const hwy::float16_t* p) {
  return LoadF16(reinterpret_cast<const uint16_t*>(p));
}
HWY_INLINE VF LoadWeights(const hwy::bfloat16_t* p) {
  return hn::PromoteTo(DF(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, DF>(), p));
}

// kRows x kTokens dot products. Each is 16 partial sums (k % 16), then the tree; a tail is padded with zeros.
template <class T, size_t kRows, size_t kTokens>
HWY_INLINE void Dots(const T* HWY_RESTRICT w, size_t n_cols, const float* HWY_RESTRICT x,
                     size_t x_stride, float* HWY_RESTRICT y, size_t y_stride) {
  Sum16 sums[kRows][kTokens];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) sums[r][t] = ZeroSum();
  }
  const size_t whole = n_cols / 16 * 16;
  for (size_t k = 0; k < whole; k += 16) {
    LUTRA_UNROLL(4)
    for (size_t p = 0; p < kParts; ++p) {
      VF xs[kTokens];
      LUTRA_UNROLL(4)
      for (size_t t = 0; t < kTokens; ++t) xs[t] = hn::LoadU(DF(), x + t * x_stride + k + p * kLanes);
      LUTRA_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        const VF ws = LoadWeights(w + r * n_cols + k + p * kLanes);
        LUTRA_UNROLL(4)
        for (size_t t = 0; t < kTokens; ++t) sums[r][t].v[p] = Fma(ws, xs[t], sums[r][t].v[p]);
      }
    }
  }
  if (whole < n_cols) {
    const size_t n = n_cols - whole;
    HWY_ALIGN float x_tail[16];
    HWY_ALIGN T w_tail[16];
    for (size_t r = 0; r < kRows; ++r) {
      hwy::ZeroBytes<sizeof(w_tail)>(w_tail);
      std::memcpy(w_tail, w + r * n_cols + whole, n * sizeof(T));
      for (size_t t = 0; t < kTokens; ++t) {
        hwy::ZeroBytes<sizeof(x_tail)>(x_tail);
        for (size_t i = 0; i < n; ++i) x_tail[i] = x[t * x_stride + whole + i];
        for (size_t p = 0; p < kParts; ++p) {
          sums[r][t].v[p] = Fma(LoadWeights(w_tail + p * kLanes), hn::Load(DF(), x_tail + p * kLanes),
                                sums[r][t].v[p]);
        }
      }
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) y[t * y_stride + r] = Reduce(sums[r][t]);
  }
}

// y[token, row] for rows [row_begin, row_end) of w [.., n_cols] and tokens [token_begin, token_end) of x.
template <class T>
HWY_INLINE void DotRows(const T* w, size_t row_begin, size_t row_end, size_t n_cols, const float* x,
                        size_t x_stride, size_t token_begin, size_t token_end, float* y,
                        size_t y_stride) {
  size_t row = row_begin;
  for (; row + 4 <= row_end; row += 4) {
    size_t t = token_begin;
    for (; t + 2 <= token_end; t += 2) {
      Dots<T, 4, 2>(w + row * n_cols, n_cols, x + t * x_stride, x_stride, y + t * y_stride + row, y_stride);
    }
    if (t < token_end) {
      Dots<T, 4, 1>(w + row * n_cols, n_cols, x + t * x_stride, x_stride, y + t * y_stride + row, y_stride);
    }
  }
  for (; row < row_end; ++row) {
    for (size_t t = token_begin; t < token_end; ++t) {
      Dots<T, 1, 1>(w + row * n_cols, n_cols, x + t * x_stride, x_stride, y + t * y_stride + row, y_stride);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_FLOAT_DOTS_INL_H_
