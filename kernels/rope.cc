#include "kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

void RotateTarget(bool adjacent, size_t n_pairs, const float* HWY_RESTRICT cos,
                  const float* HWY_RESTRICT sin, float* HWY_RESTRICT head) {
  const DF d;
  for (size_t i = 0; i < n_pairs; i += kLanes) {
    const size_t n = HWY_MIN(n_pairs - i, kLanes);
    const auto c = hn::LoadN(d, cos + i, n);
    const auto s = hn::LoadN(d, sin + i, n);
    VF a, b;
    HWY_ALIGN float pairs[2 * kLanes] = {};
    if (adjacent) {
      if (n == kLanes) {
        hn::LoadInterleaved2(d, head + 2 * i, a, b);
      } else {
        std::copy(head + 2 * i, head + 2 * (i + n), pairs);
        hn::LoadInterleaved2(d, pairs, a, b);
      }
    } else {
      a = hn::LoadN(d, head + i, n);
      b = hn::LoadN(d, head + n_pairs + i, n);
    }
    const auto x = Fma(a, c, hn::Neg(hn::Mul(b, s)));
    const auto y = Fma(a, s, hn::Mul(b, c));
    if (adjacent) {
      if (n == kLanes) {
        hn::StoreInterleaved2(x, y, d, head + 2 * i);
      } else {
        hn::StoreInterleaved2(x, y, d, pairs);
        std::copy(pairs, pairs + 2 * n, head + 2 * i);
      }
    } else {
      hn::StoreN(x, d, head + i, n);
      hn::StoreN(y, d, head + n_pairs + i, n);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {

HWY_EXPORT(RotateTarget);

constexpr double kPi = 3.14159265358979323846;

// The pair index whose wavelength makes `turns` turns in the original context.
double CorrectionDim(const RopeParams& p, double turns) {
  return static_cast<double>(p.n_rot) * std::log(p.n_ctx_orig / (turns * 2 * kPi)) /
         (2 * std::log(static_cast<double>(p.freq_base)));
}

}  // namespace

void SinCos(double x, double* sin, double* cos) {
  if (!(std::fabs(x) < 0x1p27)) {
    *sin = *cos = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  // x = k * pi/2 + r, |r| <= pi/4; pi/2 in three pieces of 33 bits (fdlibm's constants). A product with the first piece is exact
  // up to 20 bits, so k (27 bits) is taken in two parts; what the later pieces lose is below 1e-18.
  const double k = std::nearbyint(x * (2 / kPi));
  const double k_high = std::nearbyint(k * 0x1p-13) * 0x1p13;
  double r = x - k_high * 1.57079632673412561417e+00;
  r = r - (k - k_high) * 1.57079632673412561417e+00;
  r = r - k * 6.07710050630396597660e-11;
  r = r - k * 2.02226624879595063154e-21;
  const double r2 = r * r;
  // Taylor polynomials: the first term left out is below 1e-16 for |r| <= pi/4.
  double s = -1.0 / 1307674368000.0;
  s = s * r2 + 1.0 / 6227020800.0;
  s = s * r2 - 1.0 / 39916800.0;
  s = s * r2 + 1.0 / 362880.0;
  s = s * r2 - 1.0 / 5040.0;
  s = s * r2 + 1.0 / 120.0;
  s = s * r2 - 1.0 / 6.0;
  s = r + r * r2 * s;
  double c = 1.0 / 20922789888000.0;
  c = c * r2 - 1.0 / 87178291200.0;
  c = c * r2 + 1.0 / 479001600.0;
  c = c * r2 - 1.0 / 3628800.0;
  c = c * r2 + 1.0 / 40320.0;
  c = c * r2 - 1.0 / 720.0;
  c = c * r2 + 1.0 / 24.0;
  c = c * r2 - 0.5;
  c = 1.0 + r2 * c;
  switch (static_cast<int64_t>(k) & 3) {
    case 0:
      *sin = s, *cos = c;
      break;
    case 1:
      *sin = c, *cos = -s;
      break;
    case 2:
      *sin = -s, *cos = -c;
      break;
    default:
      *sin = -c, *cos = s;
      break;
  }
}

Rope::Rope(RopeParams params) : params_(std::move(params)) {
  LUTRA_CHECK(params_.n_rot % 2 == 0);
  LUTRA_CHECK(params_.freq_factors.empty() || params_.freq_factors.size() == n_pairs());
  theta_scale_ = params_.n_rot == 0
                     ? 1.0f
                     : static_cast<float>(std::pow(static_cast<double>(params_.freq_base),
                                                   -2.0 / static_cast<double>(params_.n_rot)));
  if (params_.yarn) {
    const double low = std::max(0.0, std::floor(CorrectionDim(params_, params_.beta_fast)));
    const double high = std::min(static_cast<double>(params_.n_rot) - 1,
                                 std::ceil(CorrectionDim(params_, params_.beta_slow)));
    ramp_.resize(n_pairs());
    for (size_t i = 0; i < n_pairs(); ++i) {
      const double y = (static_cast<double>(i) - low) / std::max(0.001, high - low);
      ramp_[i] = static_cast<float>(1.0 - std::clamp(y, 0.0, 1.0));
    }
  }
}

void Rope::Angles(int32_t pos, float* cos, float* sin) const {
  float theta = static_cast<float>(pos);
  for (size_t i = 0; i < n_pairs(); ++i) {
    const float full = params_.freq_factors.empty() ? theta : theta / params_.freq_factors[i];
    float angle = params_.freq_scale * full;
    if (params_.yarn) angle = angle * (1.0f - ramp_[i]) + full * ramp_[i];
    double s, c;
    SinCos(static_cast<double>(angle), &s, &c);
    cos[i] = static_cast<float>(c) * params_.magnitude;
    sin[i] = static_cast<float>(s) * params_.magnitude;
    theta = theta * theta_scale_;
  }
}

void Rope::Rotate(const float* cos, const float* sin, float* head) const {
  HWY_DYNAMIC_DISPATCH(RotateTarget)
  (params_.kind == RopeKind::kAdjacent, n_pairs(), cos, sin, head);
}

}  // namespace lutra
#endif  // HWY_ONCE
