#include "kernels/q8_activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/q8_activations.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

void QuantizeRowTarget(const float* HWY_RESTRICT x, size_t n, size_t unit, int8_t* HWY_RESTRICT q,
                       float* HWY_RESTRICT d, int32_t* HWY_RESTRICT minus_sum16,
                       int32_t* HWY_RESTRICT minus_sum32) {
  const DF df;
  const DI di;
  const hn::Rebind<int16_t, DI> d16;
  const hn::Rebind<int8_t, DI> d8;
  for (size_t u = 0; u < n / unit; ++u) {
    // As integers, magnitudes compare like floats, and infinities and NaNs are the greatest.
    auto amax_bits = hn::Zero(di);
    const auto magnitude = hn::Set(di, 0x7FFFFFFF);
    for (size_t k = 0; k < unit; k += kLanes) {
      amax_bits = hn::Max(amax_bits, hn::And(hn::BitCast(di, hn::LoadU(df, x + u * unit + k)), magnitude));
    }
    const int32_t bits = hn::ReduceMax(di, amax_bits);
    const float amax = std::bit_cast<float>(bits);
    float scale = amax / 127.0f;
    float inverse = 127.0f / amax;
    bool zero = false;
    if (bits >= 0x7F800000) {
      scale = std::numeric_limits<float>::quiet_NaN();
      zero = true;
    } else if (amax < 0x1p-100f) {
      scale = 0.0f;
      zero = true;
    }
    d[u] = scale;
    const auto inverse_v = hn::Set(df, zero ? 0.0f : inverse);
    for (size_t k = 0; k < unit; k += 16) {
      const size_t at = u * unit + k;
      auto sum = hn::Zero(di);
      for (size_t p = 0; p < 16; p += kLanes) {
        const auto v = hn::LoadU(df, x + at + p);
        auto i = hn::NearestInt(hn::Mul(v, inverse_v));
        if (zero) i = hn::Zero(di);
        sum = hn::Add(sum, i);
        hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d16, i)), d8, q + at + p);
      }
      minus_sum16[at / 16] = -hn::ReduceSum(di, sum);
    }
    for (size_t k = 0; k < unit; k += 32) {
      const size_t at = u * unit + k;
      minus_sum32[at / 32] = minus_sum16[at / 16] + minus_sum16[at / 16 + 1];
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {

HWY_EXPORT(QuantizeRowTarget);

void QuantizeRow(const float* x, size_t n, size_t unit, int8_t* q, float* d, int32_t* minus_sum16,
                 int32_t* minus_sum32) {
  HWY_DYNAMIC_DISPATCH(QuantizeRowTarget)(x, n, unit, q, d, minus_sum16, minus_sum32);
}

void QuantizeRowReference(const float* x, size_t n, size_t unit, int8_t* q, float* d,
                          int32_t* minus_sum16, int32_t* minus_sum32) {
  for (size_t u = 0; u < n / unit; ++u) {
    float amax = 0.0f;
    bool finite = true;
    for (size_t k = 0; k < unit; ++k) {
      const float v = x[u * unit + k];
      finite = finite && std::isfinite(v);
      amax = std::max(amax, std::fabs(v));
    }
    const bool zero = !finite || amax < 0x1p-100f;
    d[u] = !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0.0f : amax / 127.0f;
    const float inverse = zero ? 0.0f : 127.0f / amax;
    for (size_t k = 0; k < unit; ++k) {
      const float v = zero ? 0.0f : x[u * unit + k] * inverse;
      q[u * unit + k] = static_cast<int8_t>(std::nearbyint(v));
    }
  }
  for (size_t g = 0; g < n / 16; ++g) {
    int32_t sum = 0;
    for (size_t k = 0; k < 16; ++k) sum += q[g * 16 + k];
    minus_sum16[g] = -sum;
  }
  for (size_t g = 0; g < n / 32; ++g) minus_sum32[g] = minus_sum16[2 * g] + minus_sum16[2 * g + 1];
}

Q8Activations::Q8Activations(size_t max_tokens, size_t max_cols)
    : max_tokens_(max_tokens),
      max_cols_((max_cols + 255) / 256 * 256),
      q_(max_tokens * max_cols_),
      d_(max_tokens * max_cols_ / 32),
      minus_sum16_(max_tokens * max_cols_ / 16),
      minus_sum32_(max_tokens * max_cols_ / 32) {}

void Q8Activations::Reshape(Activations kind, size_t n_tokens, size_t n_cols) {
  unit_ = kind == Activations::kQ8x256 ? 256 : 32;
  LUTRA_CHECK(n_cols <= max_cols_ && n_cols % unit_ == 0 && n_tokens <= max_tokens_);
  n_tokens_ = n_tokens;
  n_cols_ = n_cols;
}

void Q8Activations::SetRow(size_t token, const float* x) {
  LUTRA_DCHECK(token < n_tokens_);
  const size_t begin = TileBegin(token, n_tokens_);
  const size_t size = TileSize(begin, n_tokens_);
  int8_t* q = q_.data() + begin * n_cols_;
  float* d = d_.data() + begin * (n_cols_ / unit_);
  int32_t* sum16 = minus_sum16_.data() + begin * (n_cols_ / 16);
  int32_t* sum32 = minus_sum32_.data() + begin * (n_cols_ / 32);
  if (size == 1) {
    QuantizeRow(x, n_cols_, unit_, q, d, sum16, sum32);
    return;
  }
  // A few units at a time through a small buffer, then to the token's places in the tile.
  constexpr size_t kStep = 1024;
  int8_t q_step[kStep];
  float d_step[kStep / 32];
  int32_t s16[kStep / 16], s32[kStep / 32];
  const size_t t = token - begin;
  for (size_t k = 0; k < n_cols_; k += kStep) {
    const size_t n = std::min(kStep, n_cols_ - k);
    QuantizeRow(x + k, n, unit_, q_step, d_step, s16, s32);
    for (size_t i = 0; i < n / 4; ++i) std::memcpy(q + ((k / 4 + i) * size + t) * 4, q_step + 4 * i, 4);
    for (size_t i = 0; i < n / unit_; ++i) d[(k / unit_ + i) * size + t] = d_step[i];
    for (size_t i = 0; i < n / 16; ++i) sum16[(k / 16 + i) * size + t] = s16[i];
    for (size_t i = 0; i < n / 32; ++i) sum32[(k / 32 + i) * size + t] = s32[i];
  }
}

Q8View Q8Activations::view() const {
  return {q_.data(), d_.data(), minus_sum16_.data(), minus_sum32_.data(), n_cols_, unit_, n_tokens_};
}

}  // namespace lutra
#endif  // HWY_ONCE
