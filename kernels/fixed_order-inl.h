// Per-target building blocks whose results are the same bits on every target: one virtual width of 16 float lanes, fused
// multiply-adds that are written, never invented, and fixed reduction trees.
#if defined(LUTRA_FIXED_ORDER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_FIXED_ORDER_INL_H_
#undef LUTRA_FIXED_ORDER_INL_H_
#else
#define LUTRA_FIXED_ORDER_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The widest real vector of at most 16 floats, and how many make the virtual one.
using DF = hn::CappedTag<float, 16>;
using DI = hn::CappedTag<int32_t, 16>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
constexpr size_t kLanes = HWY_MAX_LANES_D(DF);
constexpr size_t kParts = 16 / kLanes;

// a * b + c with one rounding, on targets without the instruction too.
HWY_INLINE VF Fma(VF a, VF b, VF c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  // The product is exact in double. s + e == a * b + c exactly (two-sum); rounding s to odd where e != 0 makes the second
  // rounding, to float, the only one that counts (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
  const hn::Repartition<double, DF> dd;
  const hn::RebindToUnsigned<decltype(dd)> du;
  const hn::Half<DF> dh;
  const auto fused = [&](auto x, auto y, auto z) HWY_ATTR {
    const auto p = hn::Mul(hn::PromoteTo(dd, x), hn::PromoteTo(dd, y));
    const auto w = hn::PromoteTo(dd, z);
    const auto s = hn::Add(p, w);
    const auto bb = hn::Sub(s, p);
    const auto e = hn::Add(hn::Sub(p, hn::Sub(s, bb)), hn::Sub(w, bb));
    const auto zero = hn::Zero(dd);
    const auto bits = hn::BitCast(du, s);
    const auto one = hn::Set(du, uint64_t{1});
    const auto even = hn::Eq(hn::And(bits, one), hn::Zero(du));
    // Same sign: away from zero is +1 in the bits; else -1. NaN and infinite s keep (e is NaN then, compares false).
    const auto same = hn::Xor(bits, hn::BitCast(du, e));
    const auto up = hn::Eq(hn::ShiftRight<63>(same), hn::Zero(du));
    const auto moved = hn::IfThenElse(up, hn::Add(bits, one), hn::Sub(bits, one));
    const auto inexact = hn::MaskFromVec(
        hn::BitCast(du, hn::VecFromMask(dd, hn::Or(hn::Lt(e, zero), hn::Gt(e, zero)))));
    const auto odd = hn::IfThenElse(hn::And(inexact, even), moved, bits);
    return hn::DemoteTo(dh, hn::BitCast(dd, odd));
  };
  const auto lo = fused(hn::LowerHalf(dh, a), hn::LowerHalf(dh, b), hn::LowerHalf(dh, c));
  const auto hi = fused(hn::UpperHalf(dh, a), hn::UpperHalf(dh, b), hn::UpperHalf(dh, c));
  return hn::Combine(DF(), hi, lo);
#endif
}

// One real vector of f16 numbers as float.
HWY_INLINE VF LoadF16(const uint16_t* p) {
  const hn::Rebind<uint16_t, DF> d16;
  const auto h16 = hn::LoadU(d16, p);
  const VF v = hn::PromoteTo(DF(), hn::BitCast(hn::Rebind<hwy::float16_t, DF>(), h16));
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
  // Highway's conversion without F16C takes infinity and NaN for finite numbers.
  const hn::RebindToUnsigned<DF> du;
  const auto h = hn::PromoteTo(du, h16);
  const auto infinity = hn::Set(du, 0x7C00u);
  const auto special = hn::Eq(hn::And(h, infinity), infinity);
  const auto bits =
      hn::Or(hn::Or(hn::ShiftLeft<16>(hn::And(h, hn::Set(du, 0x8000u))), hn::Set(du, 0x7F800000u)),
             hn::ShiftLeft<13>(hn::And(h, hn::Set(du, 0x3FFu))));
  return hn::BitCast(DF(), hn::IfThenElse(special, bits, hn::BitCast(du, v)));
#else
  return v;
#endif
}

// 16 partial sums, lane k % 16, reduced as ((s0+s8)+(s4+s12)) ...: halves of 16, 8, 4, 2.
struct Sum16 {
  VF v[kParts];
};
HWY_INLINE Sum16 ZeroSum() {
  Sum16 s;
  for (size_t i = 0; i < kParts; ++i) s.v[i] = hn::Zero(DF());
  return s;
}
HWY_INLINE float Reduce(const Sum16& s) {
  [[maybe_unused]] const hn::Full128<float> d4;
#if HWY_MAX_BYTES >= 64
  const hn::Half<DF> d8;
  const auto v8 = hn::Add(hn::LowerHalf(d8, s.v[0]), hn::UpperHalf(d8, s.v[0]));
  const auto v4 = hn::Add(hn::LowerHalf(d4, v8), hn::UpperHalf(d4, v8));
#elif HWY_MAX_BYTES == 32
  const auto v8 = hn::Add(s.v[0], s.v[1]);
  const auto v4 = hn::Add(hn::LowerHalf(d4, v8), hn::UpperHalf(d4, v8));
#else
  const auto v4 = hn::Add(hn::Add(s.v[0], s.v[2]), hn::Add(s.v[1], s.v[3]));
#endif
  const auto v2 = hn::Add(v4, hn::Shuffle1032(v4));
  return hn::GetLane(hn::Add(v2, hn::Shuffle2301(v2)));
}

// e^x to about 1 ulp of float for x in [-87, 88]; 0 below, e^88 above; NaN stays NaN. Cephes-style reduction, degree-6
// polynomial; the operation sequence is the definition.
HWY_INLINE VF Exp(VF x) {
  const DF d;
  const DI di;
  const auto too_small = hn::Lt(x, hn::Set(d, -87.0f));
  const auto is_nan = hn::IsNaN(x);
  auto c = hn::Min(hn::Max(x, hn::Set(d, -87.0f)), hn::Set(d, 88.0f));
  c = hn::IfThenElse(is_nan, hn::Zero(d), c);
  const auto n = hn::Round(hn::Mul(c, hn::Set(d, 1.44269504088896341f)));
  auto r = Fma(n, hn::Set(d, -0.693359375f), c);
  r = Fma(n, hn::Set(d, 2.12194440e-4f), r);
  auto p = hn::Set(d, 1.9875691500e-4f);
  p = Fma(p, r, hn::Set(d, 1.3981999507e-3f));
  p = Fma(p, r, hn::Set(d, 8.3334519073e-3f));
  p = Fma(p, r, hn::Set(d, 4.1665795894e-2f));
  p = Fma(p, r, hn::Set(d, 1.6666665459e-1f));
  p = Fma(p, r, hn::Set(d, 5.0000001201e-1f));
  p = Fma(p, hn::Mul(r, r), r);
  p = hn::Add(p, hn::Set(d, 1.0f));
  // |n| <= 127: 2^n is a normal float.
  const auto scale =
      hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
  const auto y = hn::IfThenZeroElse(too_small, hn::Mul(p, scale));
  return hn::IfThenElse(is_nan, x, y);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_FIXED_ORDER_INL_H_
