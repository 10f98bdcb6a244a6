#include "kernels/q8_activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

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

// sums [n / 16] of 16 q each; n a multiple of 32.
HWY_INLINE void SumsOf16(const int8_t* HWY_RESTRICT q, size_t n, int16_t* HWY_RESTRICT sums) {
  const hn::CappedTag<uint8_t, 32> d8;
  const hn::Repartition<uint64_t, decltype(d8)> d64;
  constexpr size_t kBytes = HWY_MAX_LANES_D(decltype(d8));
  for (size_t i = 0; i < n; i += kBytes) {
    // Unsigned sums of 8, then of both halves of 16.
    const auto v = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(q) + i);
    const auto eight = hn::SumsOf8(hn::Xor(v, hn::Set(d8, uint8_t{128})));
    const auto sixteen = hn::Add(eight, hn::Shuffle01(eight));
    HWY_ALIGN uint64_t lanes[kBytes / 8];
    hn::Store(sixteen, d64, lanes);
    for (size_t j = 0; j < kBytes / 16; ++j)
      sums[i / 16 + j] = static_cast<int16_t>(static_cast<int64_t>(lanes[2 * j]) - 16 * 128);
  }
}

void QuantizeRowTarget(const float* HWY_RESTRICT x, size_t n, size_t unit, int8_t* HWY_RESTRICT q,
                       float* HWY_RESTRICT d, int16_t* HWY_RESTRICT sums) {
  const DF df;
  const DI di;
  const hn::Rebind<int8_t, DI> d8;
  for (size_t u = 0; u < n / unit; ++u) {
    // As integers, magnitudes compare like floats, and infinities and NaNs are the greatest.
    auto amax_bits = hn::Zero(di);
    const auto magnitude = hn::Set(di, 0x7FFFFFFF);
    for (size_t k = 0; k < unit; k += kLanes) {
      amax_bits =
          hn::Max(amax_bits, hn::And(hn::BitCast(di, hn::LoadU(df, x + u * unit + k)), magnitude));
    }
    const int32_t bits = hn::ReduceMax(di, amax_bits);
    const float amax = std::bit_cast<float>(bits);
    if (bits >= 0x7F800000 || amax < 0x1p-100f) {
      d[u] = bits >= 0x7F800000 ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
      std::fill_n(q + u * unit, unit, int8_t{0});
      continue;
    }
    d[u] = amax / 127.0f;
    const auto inverse = hn::Set(df, 127.0f / amax);
    for (size_t k = u * unit; k < (u + 1) * unit; k += kLanes) {
      const auto i = hn::NearestInt(hn::Mul(hn::LoadU(df, x + k), inverse));
      hn::StoreU(hn::DemoteTo(d8, i), d8, q + k);
    }
  }
  SumsOf16(q, n, sums);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {

HWY_EXPORT(QuantizeRowTarget);

void QuantizeRow(const float* x, size_t n, size_t unit, int8_t* q, float* d, int16_t* sums) {
  HWY_DYNAMIC_DISPATCH(QuantizeRowTarget)(x, n, unit, q, d, sums);
}

void QuantizeRowReference(const float* x, size_t n, size_t unit, int8_t* q, float* d,
                          int16_t* sums) {
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
    int sum = 0;
    for (size_t k = 0; k < 16; ++k) sum += q[g * 16 + k];
    sums[g] = static_cast<int16_t>(sum);
  }
}

namespace {
constexpr size_t Blocks(size_t n_cols) {
  return (n_cols + Q8View::kBlockCols - 1) / Q8View::kBlockCols;
}
constexpr size_t Rows(size_t max_tokens, size_t max_cols) {
  return Blocks(max_cols) * max_tokens + Q8View::kSlackTokens;
}
}  // namespace

Q8Activations::Q8Activations(size_t max_tokens, size_t max_cols)
    : max_tokens_(max_tokens),
      max_cols_(Blocks(max_cols) * Q8View::kBlockCols),
      q_(Rows(max_tokens, max_cols) * Q8View::kBlockCols),
      d_(Rows(max_tokens, max_cols) * (Q8View::kBlockCols / 32)),
      sums_(Rows(max_tokens, max_cols) * (Q8View::kBlockCols / 16)),
      totals_(Rows(max_tokens, max_cols)) {}

size_t Q8Activations::PlannedBytes(size_t max_tokens, size_t max_cols) {
  return Rows(max_tokens, max_cols) *
         (Q8View::kBlockCols + 4 * (Q8View::kBlockCols / 32) + 2 * (Q8View::kBlockCols / 16) + 4);
}

void Q8Activations::Reshape(Activations kind, size_t n_tokens, size_t n_cols) {
  unit_ = kind == Activations::kQ8x256 ? 256 : 32;
  LUTRA_CHECK(n_cols <= max_cols_ && n_cols % unit_ == 0 && n_tokens <= max_tokens_);
  n_tokens_ = n_tokens;
  n_cols_ = n_cols;
}

void Q8Activations::SetRow(size_t token, const float* x) {
  LUTRA_DCHECK(token < n_tokens_);
  constexpr size_t kCols = Q8View::kBlockCols;
  for (size_t b = 0; b * kCols < n_cols_; ++b) {
    const size_t row = b * n_tokens_ + token;
    const size_t n = std::min(kCols, n_cols_ - b * kCols);
    int16_t* sums = sums_.data() + row * (kCols / 16);
    QuantizeRow(x + b * kCols, n, unit_, q_.data() + row * kCols, d_.data() + row * (kCols / unit_),
                sums);
    totals_[row] = std::accumulate(sums, sums + n / 16, int32_t{0});
  }
}

Q8View Q8Activations::view() const {
  return {q_.data(), d_.data(), sums_.data(), totals_.data(), n_cols_, unit_, n_tokens_};
}

}  // namespace lutra
#endif  // HWY_ONCE
