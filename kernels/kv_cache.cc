#include "kernels/kv_cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/ops.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/kv_cache.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

void HadamardTarget(float* HWY_RESTRICT x, size_t n) {
  const DF d;
  const size_t block = HadamardBlock(n);
  for (float* end = x + n; x < end; x += block) {
    // Distances below a vector: neighbours swap by tables, and lanes whose index has the bit set subtract.
    for (size_t h = 1; h < block; h *= 2) {
      if (h >= kLanes) {
        for (size_t i = 0; i < block; i += 2 * h) {
          for (size_t j = i; j < i + h; j += kLanes) {
            const auto a = hn::LoadU(d, x + j);
            const auto b = hn::LoadU(d, x + j + h);
            hn::StoreU(hn::Add(a, b), d, x + j);
            hn::StoreU(hn::Sub(a, b), d, x + j + h);
          }
        }
      } else if (block >= kLanes) {
        const DI di;
        const auto lane = hn::Iota(di, 0);
        const auto bit = hn::Set(di, static_cast<int32_t>(h));
        const auto upper =
            hn::MaskFromVec(hn::BitCast(d, hn::VecFromMask(di, hn::TestBit(lane, bit))));
        const auto swap = hn::IndicesFromVec(d, hn::Xor(lane, bit));
        for (size_t i = 0; i < block; i += kLanes) {
          const auto a = hn::LoadU(d, x + i);
          const auto b = hn::TableLookupLanes(a, swap);
          hn::StoreU(hn::IfThenElse(upper, hn::Sub(b, a), hn::Add(a, b)), d, x + i);
        }
      } else {
        for (size_t i = 0; i < block; i += 2 * h) {
          for (size_t j = i; j < i + h; ++j) {
            const float a = x[j], b = x[j + h];
            x[j] = a + b;
            x[j + h] = a - b;
          }
        }
      }
    }
  }
}

// max|x|, or NaN if a number is NaN or infinite.
HWY_INLINE float FiniteMaxAbs(const float* HWY_RESTRICT x, size_t n) {
  const DF d;
  // As integers, magnitudes order like floats, and what is not finite comes last.
  const hn::RebindToUnsigned<DF> du;
  const auto magnitude = hn::Set(du, 0x7FFFFFFFu);
  auto max = hn::Zero(du);
  for (size_t i = 0; i < n; i += kLanes) {
    const auto v = n - i >= kLanes ? hn::LoadU(d, x + i) : hn::LoadN(d, x + i, n - i);
    max = hn::Max(max, hn::And(hn::BitCast(du, v), magnitude));
  }
  const uint32_t bits = hn::ReduceMax(du, max);
  return bits >= 0x7F800000u ? std::numeric_limits<float>::quiet_NaN() : std::bit_cast<float>(bits);
}

// |x * inverse| < 128.
HWY_INLINE void RoundRow(const float* HWY_RESTRICT x, size_t n, float inverse,
                         int8_t* HWY_RESTRICT q8) {
  const DF d;
  const hn::Rebind<int8_t, DF> d8;
  const auto inv = hn::Set(d, inverse);
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t left = HWY_MIN(n - i, kLanes);
    const auto v = left == kLanes ? hn::LoadU(d, x + i) : hn::LoadN(d, x + i, left);
    const auto q = hn::DemoteTo(d8, hn::NearestInt(hn::Mul(v, inv)));
    if (left == kLanes) {
      hn::StoreU(q, d8, q8 + i);
    } else {
      hn::StoreN(q, d8, q8 + i, left);
    }
  }
}

float QuantizeTarget(const float* HWY_RESTRICT x, size_t n, bool bf16_scale,
                     int8_t* HWY_RESTRICT q8) {
  const float max = FiniteMaxAbs(x, n);
  if (!(max >= 0x1p-100f)) {
    std::memset(q8, 0, n);
    return max < 1.0f ? 0.0f : max;  // 0, or NaN
  }
  float scale = max / 127.0f;
  float inverse = 127.0f / max;
  if (bf16_scale) {
    scale = std::bit_cast<float>((std::bit_cast<uint32_t>(scale) + 0xFFFFu) & 0xFFFF0000u);
    inverse = 1.0f / scale;
  }
  RoundRow(x, n, inverse, q8);
  return scale;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {

HWY_EXPORT(HadamardTarget);
HWY_EXPORT(QuantizeTarget);

constexpr size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void StoreScale(float scale, size_t at, uint8_t* scales) {
  const uint16_t bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(scale) >> 16);
  std::memcpy(scales + 2 * at, &bits, 2);
}

void StoreQ8(const KvHeadLayout& l, size_t at, const float* k, const float* v, uint8_t* head) {
  alignas(64) float row[kMaxKvHeadDim];
  alignas(64) int8_t q[RoundUp(kMaxKvHeadDim, 4)];
  std::copy(k, k + l.dk, row);
  HadamardRow(row, l.dk);
  StoreScale(HWY_DYNAMIC_DISPATCH(QuantizeTarget)(row, l.dk, true, q), at, head + l.k_scales);
  const size_t quads = (l.dk + 3) / 4;
  std::memset(q + l.dk, 0, 4 * quads - l.dk);
  uint8_t* to = head + (at / 64 * quads * 64 + at % 64) * 4;
  for (size_t i = 0; i < quads; ++i) {
    uint32_t four;
    std::memcpy(&four, q + 4 * i, 4);
    four ^= 0x80808080u;  // + 128
    std::memcpy(to + i * 256, &four, 4);
  }
  StoreScale(HWY_DYNAMIC_DISPATCH(QuantizeTarget)(v, l.dv, true, q), at, head + l.v_scales);
  for (size_t c = 0; c < l.dv; c += 64) {
    const size_t columns = l.block_columns(c);
    uint8_t* block = head + l.v_columns(c) + at / 4 * columns * 4 + at % 4;
    const size_t n = std::min<size_t>(64, l.dv - c);
    for (size_t i = 0; i < n; ++i) block[4 * i] = static_cast<uint8_t>(q[c + i]);
  }
}

template <class T>
void StoreFloat(const KvHeadLayout& l, size_t at, const T* k, const T* v, uint8_t* head) {
  T* to = reinterpret_cast<T*>(head) + at / 64 * l.dk * 64 + at % 64;
  for (size_t i = 0; i < l.dk; ++i) to[64 * i] = k[i];
  std::copy(v, v + l.dv, reinterpret_cast<T*>(head + l.v) + at * l.v_width);
}

}  // namespace

KvHeadLayout::KvHeadLayout(KvType t, size_t head_dim_k, size_t head_dim_v)
    : type(t), dk(head_dim_k), dv(head_dim_v), v_width(RoundUp(head_dim_v, 16)) {
  LUTRA_CHECK(dk >= 1 && dv >= 1 && dk <= kMaxKvHeadDim && dv <= kMaxKvHeadDim);
  const size_t number = t == KvType::kF32 ? 4 : t == KvType::kF16 ? 2 : 1;
  v = kKvPage * (t == KvType::kQ8 ? RoundUp(dk, 4) : dk) * number;
  k_scales = v + kKvPage * v_width * number;
  v_scales = k_scales + (t == KvType::kQ8 ? 2 * kKvPage : 0);
  bytes = v_scales + (t == KvType::kQ8 ? 2 * kKvPage : 0);
}

void HadamardRow(float* x, size_t n) { HWY_DYNAMIC_DISPATCH(HadamardTarget)(x, n); }

float QuantizeHeadRow(const float* x, size_t n, int8_t* q8) {
  return HWY_DYNAMIC_DISPATCH(QuantizeTarget)(x, n, false, q8);
}

void StoreKv(const KvHeadLayout& l, size_t at, const float* k, const float* v, uint8_t* head) {
  LUTRA_DCHECK(at < kKvPage);
  if (l.type == KvType::kQ8) {
    StoreQ8(l, at, k, v, head);
  } else if (l.type == KvType::kF32) {
    StoreFloat<float>(l, at, k, v, head);
  } else {
    uint16_t k16[kMaxKvHeadDim], v16[kMaxKvHeadDim];
    F32ToF16(k, l.dk, k16);
    F32ToF16(v, l.dv, v16);
    StoreFloat<uint16_t>(l, at, k16, v16, head);
  }
}

}  // namespace lutra
#endif  // HWY_ONCE
