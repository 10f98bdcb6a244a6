// Dot products of F32, F16 or BF16 rows with float vectors, per target: weight matrices and keys alike.
#if defined(LUTRA_FLOAT_DOTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_FLOAT_DOTS_INL_H_
#undef LUTRA_FLOAT_DOTS_INL_H_
#else
#define LUTRA_FLOAT_DOTS_INL_H_
#endif

#include <hwy/cache_control.h>
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

// Rows are asked for this many bytes ahead; at a row's end, in the row kRows further on.
constexpr size_t kFloatPrefetch = 1024;

// y[t, 0..kRows) of kRows rows and kTokens tokens: 16 partial sums (k % 16) each, then the tree; a tail is padded with zeros.
template <class T, size_t kRows, size_t kTokens>
HWY_INLINE void Dots(const T* HWY_RESTRICT w, size_t n_cols, const float* HWY_RESTRICT x,
                     size_t x_stride, float* HWY_RESTRICT y, size_t y_stride) {
  Sum16 sums[kRows][kTokens];
  LUTRA_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    LUTRA_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) sums[r][t] = ZeroSum();
  }
  constexpr size_t kAhead = kFloatPrefetch / sizeof(T);
  const size_t whole = n_cols / 16 * 16;
  for (size_t k = 0; k < whole; k += 16) {
    const T* ahead = w + k + kAhead + (k + kAhead < n_cols ? 0 : (kRows - 1) * n_cols);
    LUTRA_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) hwy::Prefetch(ahead + r * n_cols);
    LUTRA_UNROLL(4)
    for (size_t p = 0; p < kParts; ++p) {
      VF xs[kTokens];
      LUTRA_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t)
        xs[t] = hn::LoadU(DF(), x + t * x_stride + k + p * kLanes);
      LUTRA_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        const VF ws = LoadWeights(w + r * n_cols + k + p * kLanes);
        LUTRA_UNROLL(6)
        for (size_t t = 0; t < kTokens; ++t) sums[r][t].v[p] = Fma(ws, xs[t], sums[r][t].v[p]);
      }
    }
  }
  if (whole < n_cols) {
    const size_t n = n_cols - whole;
    HWY_ALIGN float x_tail[kTokens][16] = {};
    for (size_t t = 0; t < kTokens; ++t)
      std::memcpy(x_tail[t], x + t * x_stride + whole, n * sizeof(float));
    for (size_t r = 0; r < kRows; ++r) {
      HWY_ALIGN T w_tail[16];
      hwy::ZeroBytes<sizeof(w_tail)>(w_tail);
      std::memcpy(w_tail, w + r * n_cols + whole, n * sizeof(T));
      for (size_t t = 0; t < kTokens; ++t) {
        for (size_t p = 0; p < kParts; ++p) {
          sums[r][t].v[p] = Fma(LoadWeights(w_tail + p * kLanes),
                                hn::Load(DF(), x_tail[t] + p * kLanes), sums[r][t].v[p]);
        }
      }
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) y[t * y_stride + r] = Reduce(sums[r][t]);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_FLOAT_DOTS_INL_H_
