#include "kernels/log_softmax.h"

#include <algorithm>
#include <limits>

#include "kernels/quant_format.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/log_softmax.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

using DD = hn::Repartition<double, DF>;
using VD = hn::Vec<DD>;
using DU16 = hn::Rebind<uint16_t, DF>;
constexpr size_t kDoubleLanes = kLanes / 2;

// 16 partial sums in double, lane i % 16.
struct DoubleSum16 {
  VD v[2 * kParts];
};
HWY_INLINE DoubleSum16 ZeroDoubleSum() {
  DoubleSum16 s;
  for (VD& v : s.v) v = hn::Zero(DD());
  return s;
}
HWY_INLINE double Reduce(const DoubleSum16& s) {
  HWY_ALIGN double x[16];
  for (size_t i = 0; i < 2 * kParts; ++i) hn::Store(s.v[i], DD(), x + i * kDoubleLanes);
  for (size_t half = 8; half >= 1; half /= 2) {
    for (size_t i = 0; i < half; ++i) x[i] += x[i + half];
  }
  return x[0];
}
// Lanes of part p of the 16 += w * y. The product of two floats is exact in double, so fused or not gives the same bits.
HWY_INLINE void AddProduct(VF w, VF y, size_t p, DoubleSum16& s) {
  const DD dd;
  s.v[2 * p] = hn::MulAdd(hn::PromoteLowerTo(dd, w), hn::PromoteLowerTo(dd, y), s.v[2 * p]);
  s.v[2 * p + 1] = hn::MulAdd(hn::PromoteUpperTo(dd, w), hn::PromoteUpperTo(dd, y), s.v[2 * p + 1]);
}

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

// The rest of x behind the last whole block of 16, filled up with `fill`.
struct Tail {
  HWY_ALIGN float x[16];
  Tail(const float* from, size_t count, float fill) {
    for (size_t i = 0; i < 16; ++i) x[i] = i < count ? from[i] : fill;
  }
};

HWY_INLINE float MaxOf(const float* HWY_RESTRICT x, size_t n) {
  const DF d;
  VF max[kParts];
  for (VF& m : max) m = hn::Set(d, kNegInf);
  const auto block = [&](const float* at) HWY_ATTR {
    for (size_t p = 0; p < kParts; ++p) {
      const auto v = hn::LoadU(d, at + p * kLanes);
      max[p] = hn::IfThenElse(hn::Gt(v, max[p]), v, max[p]);  // NaN never wins
    }
  };
  size_t i = 0;
  for (; i + 16 <= n; i += 16) block(x + i);
  if (i < n) {
    const Tail tail(x + i, n - i, kNegInf);
    block(tail.x);
  }
  HWY_ALIGN float lanes[16];
  for (size_t p = 0; p < kParts; ++p) hn::Store(max[p], d, lanes + p * kLanes);
  float best = lanes[0];
  for (const float v : lanes) best = v > best ? v : best;
  return best;
}

HWY_INLINE size_t FirstEqual(const float* HWY_RESTRICT x, size_t n, float value) {
  const DF d;
  const auto wanted = hn::Set(d, value);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const intptr_t at = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, x + i), wanted));
    if (at >= 0) return i + static_cast<size_t>(at);
  }
  for (; i < n; ++i) {
    if (x[i] == value) return i;
  }
  return 0;
}

ExpSum SumExpTarget(const float* HWY_RESTRICT x, size_t n) {
  const DF d;
  ExpSum out;
  out.max = MaxOf(x, n);
  out.argmax = FirstEqual(x, n, out.max);
  const auto max = hn::Set(d, out.max);
  const auto one = hn::Set(d, 1.0f);
  DoubleSum16 sum = ZeroDoubleSum();
  const auto block = [&](const float* at) HWY_ATTR {
    for (size_t p = 0; p < kParts; ++p)
      AddProduct(Exp(hn::Sub(hn::LoadU(d, at + p * kLanes), max)), one, p, sum);
  };
  size_t i = 0;
  for (; i + 16 <= n; i += 16) block(x + i);
  if (i < n) {
    const Tail tail(x + i, n - i, kNegInf);
    block(tail.x);
  }
  out.sum = Reduce(sum);
  return out;
}

double SumExpDifferenceTarget(const float* HWY_RESTRICT a, float max_a, const float* HWY_RESTRICT b,
                              size_t n) {
  const DF d;
  const auto max = hn::Set(d, max_a);
  DoubleSum16 sum = ZeroDoubleSum();
  const auto block = [&](const float* at_a, const float* at_b) HWY_ATTR {
    for (size_t p = 0; p < kParts; ++p) {
      const auto va = hn::LoadU(d, at_a + p * kLanes);
      const auto e = Exp(hn::Sub(va, max));
      const auto difference = hn::Sub(va, hn::LoadU(d, at_b + p * kLanes));
      AddProduct(e, hn::IfThenZeroElse(hn::Eq(e, hn::Zero(d)), difference), p, sum);
    }
  };
  size_t i = 0;
  for (; i + 16 <= n; i += 16) block(a + i, b + i);
  if (i < n) {
    const Tail tail_a(a + i, n - i, kNegInf), tail_b(b + i, n - i, 0.0f);
    block(tail_a.x, tail_b.x);
  }
  return Reduce(sum);
}

void EncodeTarget(const float* HWY_RESTRICT x, size_t n, float least, float inverse,
                  uint16_t* HWY_RESTRICT codes) {
  const DF d;
  const DU16 d16;
  const auto from = hn::Set(d, least);
  const auto scale = hn::Set(d, inverse);
  const auto encode = [&](VF v) HWY_ATTR {
    const auto raised = hn::IfThenElse(hn::Gt(v, from), v, from);
    return hn::DemoteTo(d16, hn::NearestInt(hn::Mul(scale, hn::Sub(raised, from))));
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(encode(hn::LoadU(d, x + i)), d16, codes + i);
  if (i < n) hn::StoreN(encode(hn::LoadN(d, x + i, n - i)), d16, codes + i, n - i);
}

double SumCodedTarget(const LogProbCodes& scale, const uint16_t* HWY_RESTRICT codes,
                      const float* HWY_RESTRICT x, float log_sum_exp, size_t n) {
  const DF d;
  const DU16 d16;
  const auto step = hn::Set(d, scale.step);
  const auto min_log_prob = hn::Set(d, scale.min_log_prob);
  const auto lse = hn::Set(d, log_sum_exp);
  const auto least = hn::Set(d, -16.0f);
  DoubleSum16 sum = ZeroDoubleSum();
  const auto add = [&](hn::Vec<DU16> code, VF v, VF valid, size_t p) HWY_ATTR {
    const auto log_p =
        hn::Add(hn::Mul(step, hn::ConvertTo(d, hn::PromoteTo(DI(), code))), min_log_prob);
    const auto counts = hn::And(hn::Gt(log_p, least), hn::Gt(valid, hn::Zero(d)));
    const auto difference = hn::Add(hn::Sub(log_p, v), lse);
    AddProduct(hn::IfThenElseZero(counts, Exp(log_p)), hn::IfThenElseZero(counts, difference), p,
               sum);
  };
  const auto one = hn::Set(d, 1.0f);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = i + p * kLanes;
      add(hn::LoadU(d16, codes + at), hn::LoadU(d, x + at), one, p);
    }
  }
  if (i < n) {
    const Tail tail(x + i, n - i, 0.0f);
    HWY_ALIGN uint16_t tail_codes[16] = {};
    HWY_ALIGN float valid[16] = {};
    for (size_t k = 0; i + k < n; ++k) {
      tail_codes[k] = codes[i + k];
      valid[k] = 1.0f;
    }
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = p * kLanes;
      add(hn::LoadU(d16, tail_codes + at), hn::LoadU(d, tail.x + at), hn::LoadU(d, valid + at), p);
    }
  }
  return Reduce(sum);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
HWY_EXPORT(SumExpTarget);
HWY_EXPORT(SumExpDifferenceTarget);
HWY_EXPORT(EncodeTarget);
HWY_EXPORT(SumCodedTarget);

ExpSum SumExp(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(SumExpTarget)(x, n); }

double SumExpDifference(const float* a, float max_a, const float* b, size_t n) {
  return HWY_DYNAMIC_DISPATCH(SumExpDifferenceTarget)(a, max_a, b, n);
}

LogProbCodes EncodeLogProbs(const float* x, size_t n, const ExpSum& sum, float log_sum,
                            uint16_t* codes) {
  constexpr float kRange = 16.0f;
  float least = sum.max;
  for (size_t i = 0; i < n; ++i) least = std::min(least, x[i]);
  least = std::max(least, sum.max - kRange);
  const LogProbCodes scale = {(sum.max - least) / 65535.0f, least - sum.max - log_sum};
  if (scale.step > 0) {
    HWY_DYNAMIC_DISPATCH(EncodeTarget)(x, n, least, 1.0f / scale.step, codes);
  } else {
    std::fill_n(codes, n, uint16_t{0});
  }
  return scale;
}

double SumCodedDifference(const LogProbCodes& scale, const uint16_t* codes, const float* x,
                          float log_sum_exp, size_t n) {
  return HWY_DYNAMIC_DISPATCH(SumCodedTarget)(scale, codes, x, log_sum_exp, n);
}

}  // namespace lutra
#endif  // HWY_ONCE
