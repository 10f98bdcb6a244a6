// Which level a weight takes under a given scale: for formats whose weights are chosen one by one.
#if defined(LUTRA_LEVEL_ASSIGN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_LEVEL_ASSIGN_INL_H_
#undef LUTRA_LEVEL_ASSIGN_INL_H_
#else
#define LUTRA_LEVEL_ASSIGN_INL_H_
#endif

#include <hwy/highway.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/quant_format.h"
#include "kernels/quantize/block_packer.h"
#include "kernels/quantize/levels.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes are groups: at most 16 of them at a time. Every lane computes alone, products and sums are rounded one by one (no fused
// multiply-add), so results do not depend on the width.
using QF = hn::CappedTag<float, 16>;
using QI = hn::CappedTag<int32_t, 16>;
using VQ = hn::Vec<QF>;
using VQI = hn::Vec<QI>;
constexpr size_t kQLanes = HWY_MAX_LANES_D(QF);
constexpr size_t kStride = 16;  // kChunk

// table[i] for i in [0, N).
template <size_t N>
HWY_INLINE VQ LookUp(const float* HWY_RESTRICT table, VQI i) {
  const QF d;
  if constexpr (N <= kQLanes) {
    return hn::TableLookupLanes(hn::LoadU(d, table), hn::IndicesFromVec(d, i));
  } else if constexpr (N <= 2 * kQLanes) {
    return hn::TwoTablesLookupLanes(d, hn::LoadU(d, table), hn::LoadU(d, table + kQLanes),
                                    hn::IndicesFromVec(d, i));
  } else if constexpr (N <= 4 * kQLanes && kQLanes == 16) {
    const auto low = hn::IndicesFromVec(d, hn::And(i, hn::Set(QI(), 31)));
    const auto a = hn::TwoTablesLookupLanes(d, hn::LoadU(d, table), hn::LoadU(d, table + 16), low);
    const auto b =
        hn::TwoTablesLookupLanes(d, hn::LoadU(d, table + 32), hn::LoadU(d, table + 48), low);
    return hn::IfThenElse(hn::RebindMask(d, hn::Gt(i, hn::Set(QI(), 31))), b, a);
  } else {
    return hn::GatherIndex(d, table, i);
  }
}

// The position of the level of L (levels.h) nearest to u; the lower one on a tie.
template <class L, size_t kDepth = 0>
HWY_INLINE VQI NearestPosition(VQ u, VQI path) {
  if constexpr (kDepth == L::kDepth) {
    return path;
  } else {
    const QI di;
    VQ boundary;
    if constexpr (kDepth == 0) {
      boundary = hn::Set(QF(), L::kBoundaries[0][0]);
    } else {
      boundary = LookUp<(size_t{1} << kDepth)>(L::kBoundaries[kDepth].data(), path);
    }
    const auto above = hn::RebindMask(di, hn::Gt(u, boundary));
    const VQI twice = hn::Add(path, path);
    return NearestPosition<L, kDepth + 1>(
        u, hn::IfThenElse(above, hn::Add(twice, hn::Set(di, 1)), twice));
  }
}

// Rounds to an integer, ties to even; |u| < 2^22.
HWY_INLINE VQ RoundInteger(VQ u) {
  const VQ magic = hn::Set(QF(), 12582912.0f);
  return hn::Sub(hn::Add(u, magic), magic);
}
inline float RoundInteger(float u) { return u + 12582912.0f - 12582912.0f; }

// The level of L nearest to u; the lower one on a tie.
template <class L>
HWY_INLINE VQ NearestLevel(VQ u) {
  if constexpr (L::kSize == 4) {
    const QF d;
    const auto next = [&](float boundary, float level, VQ v) HWY_ATTR {
      return hn::IfThenElse(hn::Gt(u, hn::Set(d, boundary)), hn::Set(d, level), v);
    };
    const VQ v = next(L::kBoundaries[1][0], L::kValues[1], hn::Set(d, L::kValues[0]));
    return next(L::kBoundaries[1][1], L::kValues[3], next(L::kBoundaries[0][0], L::kValues[2], v));
  } else if constexpr (kQLanes == 16 &&
                       L::kTables.n_bins !=
                           0) {  // with one look-up for what takes a search otherwise
    constexpr size_t kBins = L::kTables.n_bins;
    const QF d;
    const VQ at =
        hn::Add(hn::Mul(u, hn::Set(d, L::kTables.bin_scale)), hn::Set(d, L::kTables.bin_offset));
    const VQ clamped = hn::Min(hn::Max(at, hn::Zero(d)), hn::Set(d, static_cast<float>(kBins - 1)));
    // The integer is in the lowest bits of the sum.
    const VQI bin = hn::And(hn::BitCast(QI(), hn::Add(clamped, hn::Set(d, 12582912.0f))),
                            hn::Set(QI(), static_cast<int32_t>(kBins - 1)));
    const auto above = hn::Gt(u, LookUp<kBins>(L::kTables.bin_boundary.data(), bin));
    return hn::IfThenElse(above, LookUp<kBins>(L::kTables.bin_above.data(), bin),
                          LookUp<kBins>(L::kTables.bin_below.data(), bin));
  } else {
    return LookUp<L::kSize>(L::kValues.data(), NearestPosition<L>(u, hn::Zero(QI())));
  }
}

// Weights one by one: the nearest level each.
template <QuantFormat F>
struct LevelAssign {
  static constexpr size_t kGroup = F::kGroup;
  static constexpr bool kPlainIndexes = true;  // BlockPacker packs them
  using L = SortedLevels<F>;
  // The end of the table that is further from 0; scales of both signs are worth trying.
  static constexpr float kEnd = [] {
    if constexpr (F::kTable.size() == 0) {
      return static_cast<float>(-F::kZero);
    } else {
      return L::kValues[0];
    }
  }();
  static constexpr float kOtherEnd = [] {
    if constexpr (F::kTable.size() == 0) {
      return static_cast<float>((1 << F::kBits) - 1 - F::kZero);
    } else {
      return L::kValues[L::kSize - 1];
    }
  }();
  static constexpr bool kBothSigns = true;

  // The level nearest to u, which the table of the lane (shift is 0 or kShift) has.
  static HWY_INLINE VQ Level(VQ u, VQ shift) {
    if constexpr (F::kTable.size() == 0) {
      const QF d;
      (void)shift;
      // 8 bits: -128 stays unused, as everywhere.
      constexpr float kLow = F::kBits == 8 ? -127.0f : static_cast<float>(-F::kZero);
      constexpr float kHigh = static_cast<float>((1 << F::kBits) - 1 - F::kZero);
      return RoundInteger(hn::Min(hn::Max(u, hn::Set(d, kLow)), hn::Set(d, kHigh)));
    } else if constexpr (F::kShift == 0) {
      return NearestLevel<L>(u);
    } else {
      return hn::Add(NearestLevel<L>(hn::Sub(u, shift)), shift);
    }
  }

  // sum w x v and sum w v^2 for the levels v nearest to x * inv.
  static HWY_INLINE void Sums(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv,
                              VQ shift, VQ* a, VQ* b) {
    const QF d;
    VQ sa = hn::Zero(d), sb = hn::Zero(d);
    for (size_t i = 0; i < kGroup; ++i) {
      const VQ xi = hn::LoadU(d, x + i * kStride);
      const VQ v = Level(hn::Mul(xi, inv), shift);
      const VQ wv = hn::Mul(hn::LoadU(d, w + i * kStride), v);
      sa = hn::Add(sa, hn::Mul(wv, xi));
      sb = hn::Add(sb, hn::Mul(wv, v));
    }
    *a = sa;
    *b = sb;
  }

  // sum w (x - scale v)^2.
  static HWY_INLINE VQ Loss(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ scale,
                            VQ inv, VQ shift) {
    const QF d;
    VQ loss = hn::Zero(d);
    for (size_t i = 0; i < kGroup; ++i) {
      const VQ xi = hn::LoadU(d, x + i * kStride);
      const VQ r = hn::Sub(xi, hn::Mul(scale, Level(hn::Mul(xi, inv), shift)));
      loss = hn::Add(loss, hn::Mul(hn::Mul(hn::LoadU(d, w + i * kStride), r), r));
    }
    return loss;
  }

  // index[i * kStride + lane] = the stored index of weight i.
  static void Store(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VQ inv, VQ shift,
                    int32_t* HWY_RESTRICT index) {
    (void)w;
    const QF d;
    const QI di;
    for (size_t i = 0; i < kGroup; ++i) {
      const VQ u = hn::Mul(hn::LoadU(d, x + i * kStride), inv);
      if constexpr (F::kTable.size() == 0) {
        hn::StoreU(hn::Add(hn::ConvertTo(di, Level(u, shift)), hn::Set(di, F::kZero)), di,
                   index + i * kStride);
      } else {
        const VQI at = NearestPosition<L>(hn::Sub(u, shift), hn::Zero(di));
        if constexpr (L::kSorted) {
          hn::StoreU(at, di, index + i * kStride);
        } else {
          hn::StoreU(hn::GatherIndex(di, L::kIndexes.data(), at), di, index + i * kStride);
        }
      }
    }
  }

  template <class Block>
  static void Pack(const BlockPacker<F>& packer, Block* block, size_t g, const int32_t* index) {
    for (size_t i = 0; i < kGroup; ++i) packer.SetIndex(block, g * kGroup + i, index[i * kStride]);
  }
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
