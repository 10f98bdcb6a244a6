#include "kernels/ops.h"

#include <bit>
#include <cmath>

#include "kernels/quant_format.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ops.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// Sum of x[i] * y[i] in the fixed order.
HWY_INLINE float Dot(const float* HWY_RESTRICT x, const float* HWY_RESTRICT y, size_t n) {
  Sum16 sum = ZeroSum();
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t p = 0; p < kParts; ++p) {
      sum.v[p] =
          Fma(hn::LoadU(DF(), x + i + p * kLanes), hn::LoadU(DF(), y + i + p * kLanes), sum.v[p]);
    }
  }
  if (i < n) {
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = i + p * kLanes;
      const size_t left = at < n ? HWY_MIN(n - at, kLanes) : 0;
      if (left == 0) break;
      sum.v[p] = Fma(hn::LoadN(DF(), x + at, left), hn::LoadN(DF(), y + at, left), sum.v[p]);
    }
  }
  return Reduce(sum);
}

// How fn of ForVectors reads and writes: whole vectors, or the first n lanes of one.
struct WholeVector {
  HWY_INLINE VF Load(const float* p) const { return hn::LoadU(DF(), p); }
  HWY_INLINE void Store(VF v, float* p) const { hn::StoreU(v, DF(), p); }
};
struct PartOfVector {
  size_t n;
  HWY_INLINE VF Load(const float* p) const { return hn::LoadN(DF(), p, n); }
  HWY_INLINE void Store(VF v, float* p) const { hn::StoreN(v, DF(), p, n); }
};

// Calls fn(i, access) for vectors of elements from i that together are [0, n).
template <class Fn>
HWY_INLINE void ForVectors(size_t n, const Fn& fn) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) fn(i, WholeVector{});
  if (i < n) fn(i, PartOfVector{n - i});
}

void RmsNormTarget(const float* x, const float* w, size_t n, float eps, float* out) {
  const float mean = Dot(x, x, n) / static_cast<float>(n);
  const auto scale = hn::Set(DF(), 1.0f / std::sqrt(mean + eps));
  ForVectors(n, [&](size_t i, auto at) HWY_ATTR {
    at.Store(hn::Mul(hn::Mul(at.Load(x + i), scale), at.Load(w + i)), out + i);
  });
}

void AddTarget(const float* HWY_RESTRICT y, size_t n, float* HWY_RESTRICT x) {
  ForVectors(n, [&](size_t i, auto at)
                    HWY_ATTR { at.Store(hn::Add(at.Load(x + i), at.Load(y + i)), x + i); });
}

void AddScaledTarget(const float* HWY_RESTRICT y, float scale, size_t n, float* HWY_RESTRICT x) {
  const auto s = hn::Set(DF(), scale);
  ForVectors(n, [&](size_t i, auto at)
                    HWY_ATTR { at.Store(Fma(s, at.Load(y + i), at.Load(x + i)), x + i); });
}

void SiluMulTarget(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, size_t n,
                   float* out) {
  const auto one = hn::Set(DF(), 1.0f);
  ForVectors(n, [&](size_t i, auto at) HWY_ATTR {
    const auto g = at.Load(gate + i);
    const auto silu = hn::Div(g, hn::Add(one, Exp(hn::Neg(g))));
    at.Store(hn::Mul(silu, at.Load(up + i)), out + i);
  });
}

void SoftmaxTarget(size_t n, float* x) {
  float max = x[0];
  for (size_t i = 1; i < n; ++i) max = x[i] > max ? x[i] : max;
  Sum16 sum = ZeroSum();
  for (size_t i = 0; i < n; i += 16) {
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = i + p * kLanes;
      if (at >= n) break;
      const size_t left = HWY_MIN(n - at, kLanes);
      const auto e = Exp(hn::Sub(hn::LoadN(DF(), x + at, left), hn::Set(DF(), max)));
      hn::StoreN(e, DF(), x + at, left);
      sum.v[p] = hn::Add(sum.v[p], hn::LoadN(DF(), x + at, left));
    }
  }
  const auto total = hn::Set(DF(), Reduce(sum));
  ForVectors(n,
             [&](size_t i, auto at) HWY_ATTR { at.Store(hn::Div(at.Load(x + i), total), x + i); });
}

float SigmoidTarget(float x) {
  const auto one = hn::Set(DF(), 1.0f);
  return hn::GetLane(hn::Div(one, hn::Add(one, Exp(hn::Set(DF(), -x)))));
}

// The conversion instruction rounds to nearest even; where there is none, integer arithmetic does.
void F32ToF16Target(const float* x, size_t n, uint16_t* out) {
  size_t i = 0;
#if HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2)
  const hn::Rebind<hwy::float16_t, DF> d16;
  const hn::Rebind<uint16_t, DF> du16;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::BitCast(du16, hn::DemoteTo(d16, hn::LoadU(DF(), x + i))), du16, out + i);
  }
#endif
  for (; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]);
    const uint32_t sign = bits >> 16 & 0x8000;
    uint32_t m = bits & 0x7FFFFFFF;
    if (m > 0x7F800000) {
      m = 0x7E00;  // NaN
    } else if (m >= 0x477FF000) {
      m = 0x7C00;                 // rounds to 65536 or more: infinity
    } else if (m < 0x38800000) {  // subnormal f16: an integer multiple of 2^-24
      const float scaled = std::bit_cast<float>(m) *
                           0x1p24f;  // exact; adding 2^23 rounds to an integer, ties to even
      m = static_cast<uint32_t>((scaled + 8388608.0f) - 8388608.0f);
    } else {
      m = (m - 0x38000000 + 0xFFF + (m >> 13 & 1)) >> 13;
    }
    out[i] = static_cast<uint16_t>(sign | m);
  }
}

void F16ToF32Target(const uint16_t* x, size_t n, float* out) {
  size_t i = 0;
#if HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2)
  const hn::Rebind<hwy::float16_t, DF> d16;
  const hn::Rebind<uint16_t, DF> du16;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::PromoteTo(DF(), hn::BitCast(d16, hn::LoadU(du16, x + i))), DF(), out + i);
  }
#endif
  for (; i < n; ++i) out[i] = lutra::F16ToF32(x[i]);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
HWY_EXPORT(RmsNormTarget);
HWY_EXPORT(AddTarget);
HWY_EXPORT(AddScaledTarget);
HWY_EXPORT(SiluMulTarget);
HWY_EXPORT(SoftmaxTarget);
HWY_EXPORT(SigmoidTarget);
HWY_EXPORT(F32ToF16Target);
HWY_EXPORT(F16ToF32Target);

void RmsNorm(const float* x, const float* w, size_t n, float eps, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNormTarget)(x, w, n, eps, out);
}
void Add(const float* y, size_t n, float* x) { HWY_DYNAMIC_DISPATCH(AddTarget)(y, n, x); }
void AddScaled(const float* y, float scale, size_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(AddScaledTarget)(y, scale, n, x);
}
void SiluMul(const float* gate, const float* up, size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(SiluMulTarget)(gate, up, n, out);
}
void Softmax(size_t n, float* x) {
  if (n != 0) HWY_DYNAMIC_DISPATCH(SoftmaxTarget)(n, x);
}
float Sigmoid(float x) { return HWY_DYNAMIC_DISPATCH(SigmoidTarget)(x); }
void F32ToF16(const float* x, size_t n, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(F32ToF16Target)(x, n, out);
}
void F16ToF32(const uint16_t* x, size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(F16ToF32Target)(x, n, out);
}
}  // namespace lutra
#endif  // HWY_ONCE
