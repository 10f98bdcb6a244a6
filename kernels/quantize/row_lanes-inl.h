// A row as the lane-wise encoders see it: 16 groups in 16 lanes (row_encoder.h).
#if defined(LUTRA_ROW_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_ROW_LANES_INL_H_
#undef LUTRA_ROW_LANES_INL_H_
#else
#define LUTRA_ROW_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/quantize/level_assign-inl.h"
#include "kernels/quantize/row_encoder.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

template <class T>
void Grow(AlignedArray<T>* a, size_t n) {
  if (a->size() < n) *a = AlignedArray<T>(n);
}

// 1 / s, 0 where s is 0 (or so small that 1 / s would be huge).
HWY_INLINE VQ Inverse(VQ s) {
  const QF d;
  const auto ok = hn::Gt(hn::Abs(s), hn::Set(d, 1e-30f));
  return hn::IfThenElseZero(ok, hn::Div(hn::Set(d, 1.0f), s));
}

// Weights [n_chunks][weight of the group][16 groups] and their importances, zeros behind the last group.
template <size_t kGroup>
struct RowLanes {
  const float *xt, *wt;
  size_t n_groups, n_chunks, n_padded;
  int unit;

  // Makes room in `scratch` for this, for as many indexes and for n_arrays floats a group.
  RowLanes(const float* x, const float* w, size_t n, int row_unit, size_t n_arrays,
           QuantizeScratch* scratch)
      : n_groups(n / kGroup),
        n_chunks((n_groups + kChunk - 1) / kChunk),
        n_padded(n_chunks * kChunk),
        unit(row_unit) {
    Grow(&scratch->xt, n_padded * kGroup);
    Grow(&scratch->wt, n_padded * kGroup);
    Grow(&scratch->index, n_padded * kGroup);
    Grow(&scratch->lanes, n_padded * n_arrays);
    Transpose(x, scratch->xt.data());
    Transpose(w, scratch->wt.data());
    xt = scratch->xt.data();
    wt = scratch->wt.data();
  }

  // body(x, w, group) for each vector of groups: its first weights and importances, and the number of its first group.
  template <class Body>
  HWY_INLINE void ForVectors(const Body& body) const {
    for (size_t c = 0; c < n_chunks; ++c) {
      for (size_t p = 0; p < kChunk; p += kQLanes) {
        const size_t at = c * kGroup * kStride + p;
        body(xt + at, wt + at, c * kChunk + p);
      }
    }
  }

  double SumOfAll(const float* of_groups) const {
    double sum = 0.0;
    for (size_t g = 0; g < n_groups; ++g) sum += static_cast<double>(of_groups[g]);
    return sum;
  }

  // Where the first weight of group g is.
  static size_t At(size_t g) { return g / kChunk * kGroup * kStride + g % kChunk; }

 private:
  void Transpose(const float* HWY_RESTRICT x, float* HWY_RESTRICT out) const {
    for (size_t c = 0; c < n_chunks; ++c) {
      const size_t left = std::min(kChunk, n_groups - c * kChunk);
      float* to = out + c * kGroup * kStride;
      for (size_t l = 0; l < left; ++l) {
        const float* from = x + (c * kChunk + l) * kGroup;
        for (size_t i = 0; i < kGroup; ++i) to[i * kStride + l] = from[i];
      }
      for (size_t l = left; l < kChunk; ++l) {
        for (size_t i = 0; i < kGroup; ++i) to[i * kStride + l] = 0.0f;
      }
    }
  }
};

// sum w x^2 of each group.
template <size_t kGroup>
HWY_INLINE VQ ZeroLoss(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w) {
  const QF d;
  VQ loss = hn::Zero(d);
  for (size_t i = 0; i < kGroup; ++i) {
    const VQ xi = hn::LoadU(d, x + i * kStride);
    loss = hn::Add(loss, hn::Mul(hn::LoadU(d, w + i * kStride), hn::Mul(xi, xi)));
  }
  return loss;
}

// The sum of a super-block's groups, in order.
inline float SumOf(const float* lanes, size_t begin, size_t n) {
  float sum = 0.0f;
  for (size_t g = begin; g < begin + n; ++g) sum += lanes[g];
  return sum;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
