// Few tokens (1..8) x packed panels: indexes go from their planes through the table to the dot product without leaving registers.
//
// Beside kernels/panel_decode-inl.h a chunk of 64 weights costs one vpdpbusd a token, its activations broadcast from memory. A group (4 or 8
// chunks) adds one load-extend of the scales and, a token, one broadcast, one multiply, one add: the accumulators begin at
// (shift - offset) * sum of the group's activations, which undoes the lanes' offset and applies the second table of a single token (several
// tokens share an addition to the lanes instead).
#if defined(LUTRA_PANEL_GEMV_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_PANEL_GEMV_INL_H_
#undef LUTRA_PANEL_GEMV_INL_H_
#else
#define LUTRA_PANEL_GEMV_INL_H_
#endif

#include <hwy/cache_control.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/panel_decode-inl.h"
#include "kernels/panel_matmul.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// out[g] = factor * sum of the activations of group g, for the groups of a block of 256 columns.
template <int kGroup>
HWY_INLINE void GroupSums(const int16_t* HWY_RESTRICT sums, int factor, int32_t* HWY_RESTRICT out) {
  if constexpr (kGroup == 16) {
    const DI di;
    const hn::Rebind<int16_t, DI> d16;
    LUTRA_UNROLL(4)
    for (size_t i = 0; i < 16; i += kLanes) {
      hn::Store(hn::Mul(hn::PromoteTo(di, hn::LoadU(d16, sums + i)), hn::Set(di, factor)), di,
                out + i);
    }
  } else {
    const hn::CappedTag<int32_t, 8> di;
    const hn::Repartition<int16_t, decltype(di)> d16;
    LUTRA_UNROLL(2)
    for (size_t i = 0; i < 8; i += hn::Lanes(di)) {
      hn::Store(hn::WidenMulPairwiseAdd(di, hn::LoadU(d16, sums + 2 * i),
                                        hn::Set(d16, static_cast<int16_t>(factor))),
                di, out + i);
    }
  }
}

// acc[t] += quads [kQuad, kEnd) of a step; q points to the step's first activation of the first token.
template <PanelKind kKind, class DotT, size_t kTokens, int kQuad, int kEnd>
HWY_INLINE void DotQuads(const uint8_t* HWY_RESTRICT step, const Table<kKind>& table, VU8 shift,
                         const int8_t* HWY_RESTRICT q, VI (&acc)[kTokens]) {
  if constexpr (kQuad < kEnd) {
    VU8 u = Quad<kKind, kQuad>(step, table);
    if constexpr (DotT::kSigned && kKind.offset != 0 && !kKind.table)
      u = hn::Sub(u, hn::Set(DU8(), static_cast<uint8_t>(kKind.offset)));
    if constexpr (kKind.shift != 0 && kTokens > 1) u = hn::Add(u, shift);
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      int32_t four;
      std::memcpy(&four, q + Q8View::kBlockCols * t + 4 * kQuad, 4);
      acc[t] = DotT::Dot(acc[t], u, hn::BitCast(DI8(), hn::Set(DI(), four)));
    }
    DotQuads<kKind, DotT, kTokens, kQuad + 1, kEnd>(step, table, shift, q, acc);
  }
}

// Without a 4-way instruction: sum[t] += scale * quads [kQuad, kEnd), by 2-way products of |lane| (u8) and the activation with the lane's
// sign (i8), as many sums of two as fit int16 added before the multiplication by the scale widens them. `table` gives signed lanes.
template <PanelKind kKind, size_t kTokens, int kQuad, int kEnd>
HWY_INLINE void DotQuadPairs(const uint8_t* HWY_RESTRICT step, const Table<kKind>& table, VU8 shift,
                             const int8_t* HWY_RESTRICT q, hn::Vec<DI16> scale,
                             VI (&sum)[kTokens]) {
  if constexpr (kQuad < kEnd) {
    const DI16 d16;
    const DI8 di8;
    constexpr int kSums = HWY_MIN(SafePairSums(kKind.magnitude), kEnd - kQuad);
    static_assert(kSums > 0);
    hn::Vec<DI16> pairs[kTokens];
    const auto add = [&]<int kAt>(std::integral_constant<int, kAt>) HWY_ATTR {
      VU8 u = Quad<kKind, kQuad + kAt>(step, table);
      if constexpr (kKind.offset != 0 && !kKind.table)
        u = hn::Sub(u, hn::Set(DU8(), static_cast<uint8_t>(kKind.offset)));
      if constexpr (kKind.shift != 0) u = hn::Add(u, shift);
      [[maybe_unused]] const VI8 lane = hn::BitCast(di8, u);
      if constexpr (kKind.offset != 0) u = hn::BitCast(DU8(), hn::Abs(lane));
      LUTRA_UNROLL(8)
      for (size_t t = 0; t < kTokens; ++t) {
        int32_t four;
        std::memcpy(&four, q + Q8View::kBlockCols * t + 4 * (kQuad + kAt), 4);
        VI8 a = hn::BitCast(di8, hn::Set(DI(), four));
        if constexpr (kKind.offset != 0) a = hn::IfNegativeThenNegOrUndefIfZero(lane, a);
        const auto two = hn::SatWidenMulPairwiseAdd(d16, u, a);
        pairs[t] = kAt == 0 ? two : hn::Add(pairs[t], two);
      }
    };
    [&]<int... kAt>(std::integer_sequence<int, kAt...>) HWY_ATTR {
      (add(std::integral_constant<int, kAt>{}), ...);
    }
    (std::make_integer_sequence<int, kSums>{});
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t)
      sum[t] = hn::Add(sum[t], hn::WidenMulPairwiseAdd(DI(), pairs[t], scale));
    DotQuadPairs<kKind, kTokens, kQuad + kSums, kEnd>(step, table, shift, q, scale, sum);
  }
}

// Weights are asked for this many bytes ahead: hardware prefetchers lose the stream among the activations' of several tokens.
constexpr size_t kPrefetch = 4096;

// y[t] for the kTokens tokens from `token` and the rows [row, row + lanes) of a panel. Weights `ahead` bytes further on are asked for.
template <PanelKind kKind, class DotT, size_t kTokens>
HWY_INLINE void FewTokens(const uint8_t* HWY_RESTRICT panel, const Table<kKind>& table,
                          const Q8View& x, size_t token, size_t row, size_t ahead,
                          VF (&y)[kTokens]) {
  const DI di;
  const DF df;
  constexpr size_t kGroups = 256 / static_cast<size_t>(kKind.group);  // a block
  constexpr size_t kUnits = 256 / static_cast<size_t>(kKind.unit);
  constexpr int kGroupQuads = kKind.group / 4;
  constexpr size_t kGroupsPerStep = 8 / kGroupQuads;
  constexpr bool kPairs = !DotT::kOneInstruction;
  constexpr int kOffset = DotT::kSigned ? 0 : kKind.offset;
  constexpr bool kStarts = !kPairs && (kOffset != 0 || (kKind.shift != 0 && kTokens == 1));
  VF row_super = hn::Zero(df);
  if constexpr (kKind.super == SuperKind::kRow) row_super = LoadSupers<SuperKind::kF32>(panel, row);
  const uint8_t* HWY_RESTRICT p = panel + kKind.panel_header_bytes();
  LUTRA_UNROLL(8)
  for (size_t t = 0; t < kTokens; ++t) y[t] = hn::Zero(df);

  const size_t n_all_units = x.n_cols / static_cast<size_t>(kKind.unit);
  for (size_t b = 0; b * kUnits < n_all_units; ++b) {
    const size_t at = b * x.n_tokens + token;
    const int8_t* HWY_RESTRICT q = x.q + at * 256;
    const float* HWY_RESTRICT d = x.d + at * kUnits;
    alignas(64) int32_t starts[kTokens][kGroups];
    alignas(64) int32_t shifted_starts[kTokens][kGroups];
    alignas(64) int32_t sums[kTokens][kGroups];
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      if constexpr (kStarts) GroupSums<kKind.group>(x.sums + (at + t) * 16, -kOffset, starts[t]);
      if constexpr (!kPairs && kKind.shift != 0 && kTokens == 1) {
        GroupSums<kKind.group>(x.sums + (at + t) * 16, kKind.shift - kOffset, shifted_starts[t]);
      }
      if constexpr (kKind.bias) GroupSums<kKind.group>(x.sums + (at + t) * 16, 1, sums[t]);
    }
    const size_t n_units = HWY_MIN(kUnits, n_all_units - b * kUnits);
    size_t block_group = 0;
    for (size_t u = 0; u < n_units; ++u) {
      const UnitFields<kKind> f(p);
      for (size_t i = 0; i < kKind.header_bytes(); i += 64) hwy::Prefetch(p + ahead + i);
      const uint8_t* step = f.steps + 4 * row;
      VI sum[kTokens];
      VI bias[kTokens];
      LUTRA_UNROLL(8)
      for (size_t t = 0; t < kTokens; ++t) {
        sum[t] = hn::Zero(di);
        bias[t] = hn::Zero(di);
      }
      for (size_t s = 0; s < kKind.steps(); ++s) {
        for (size_t i = 0; i < kKind.step_bytes(); i += 64) hwy::Prefetch(step + ahead + i);
        LUTRA_UNROLL(2)
        for (size_t h = 0; h < kGroupsPerStep; ++h) {
          const size_t g = s * kGroupsPerStep + h;
          VU8 shift = hn::Zero(DU8());
          if constexpr (kKind.shift != 0 && (kPairs || kTokens > 1))
            shift = ShiftLanes<kKind>(f.shifts, g, row);
          if constexpr (kPairs) {
            auto scale16 = hn::Set(DI16(), int16_t{1});
            if constexpr (kKind.scale_bits != 0) {
              const VI scale = LoadScales<kKind, true>(f.scales, g, row);
              scale16 = hn::BitCast(DI16(), Pair(scale, scale));
            }
            if constexpr (kGroupsPerStep == 1) {
              DotQuadPairs<kKind, kTokens, 0, 8>(step, table, shift, q, scale16, sum);
            } else if (h == 0) {
              DotQuadPairs<kKind, kTokens, 0, 4>(step, table, shift, q, scale16, sum);
            } else {
              DotQuadPairs<kKind, kTokens, 4, 8>(step, table, shift, q, scale16, sum);
            }
          } else {
            VI acc[kTokens];
            if constexpr (kKind.shift != 0 && kTokens == 1) {
              acc[0] = hn::IfThenElse(ShiftMask<kKind>(f.shifts, g, row),
                                      hn::Set(di, shifted_starts[0][block_group]),
                                      hn::Set(di, starts[0][block_group]));
            } else {
              LUTRA_UNROLL(8)
              for (size_t t = 0; t < kTokens; ++t) {
                acc[t] = hn::Zero(di);
                if constexpr (kStarts) acc[t] = hn::Set(di, starts[t][block_group]);
              }
            }
            if constexpr (kGroupsPerStep == 1) {
              DotQuads<kKind, DotT, kTokens, 0, 8>(step, table, shift, q, acc);
            } else if (h == 0) {
              DotQuads<kKind, DotT, kTokens, 0, 4>(step, table, shift, q, acc);
            } else {
              DotQuads<kKind, DotT, kTokens, 4, 8>(step, table, shift, q, acc);
            }
            if constexpr (kKind.scale_bits == 0) {
              LUTRA_UNROLL(8)
              for (size_t t = 0; t < kTokens; ++t) sum[t] = hn::Add(sum[t], acc[t]);
            } else {
              const VI scale = LoadScales<kKind, true>(f.scales, g, row);
              LUTRA_UNROLL(8)
              for (size_t t = 0; t < kTokens; ++t) sum[t] = hn::Add(sum[t], hn::Mul(acc[t], scale));
            }
          }
          if constexpr (kKind.bias) {
            VI scale = hn::Set(di, 1);
            if constexpr (kKind.scale_bits != 0) scale = LoadScales<kKind, false>(f.biases, g, row);
            LUTRA_UNROLL(8)
            for (size_t t = 0; t < kTokens; ++t) {
              bias[t] = hn::Add(bias[t], hn::Mul(scale, hn::Set(di, sums[t][block_group])));
            }
          }
          ++block_group;
        }
        step += kKind.step_bytes();
        q += 32;
      }
      VF super = row_super;
      if constexpr (kKind.super != SuperKind::kRow) super = LoadSupers<kKind.super>(f.supers, row);
      VF bias_super = hn::Zero(df);
      if constexpr (kKind.bias) bias_super = LoadSupers<SuperKind::kF16>(f.bias_supers, row);
      LUTRA_UNROLL(8)
      for (size_t t = 0; t < kTokens; ++t) {
        const auto da = hn::Set(df, d[t * kUnits + u]);
        y[t] = Fma(hn::Mul(super, da), hn::ConvertTo(df, sum[t]), y[t]);
        if constexpr (kKind.bias)
          y[t] = Fma(hn::Mul(bias_super, da), hn::ConvertTo(df, bias[t]), y[t]);
      }
      p += kKind.unit_bytes();
    }
  }
}

// Tokens [token, token + kTokens) x one panel; those past the last are computed from whatever is there and dropped.
template <PanelKind kKind, class DotT, size_t kTokens>
HWY_NOINLINE void FewTokensPanel(const PanelMatrix& w, const Q8View& x, size_t panel, size_t token,
                                 size_t ahead, float* HWY_RESTRICT y, size_t y_stride) {
  const DF df;
  const Table<kKind> table(w.table, DotT::kOneInstruction && !DotT::kSigned ? 0 : kKind.offset);
  const size_t first_row = panel * kPanelRows;
  const size_t n = HWY_MIN(kTokens, x.n_tokens - token);
  for (size_t row = 0; row < kPanelRows; row += kLanes) {
    if (first_row + row >= w.n_rows) break;
    VF out[kTokens];
    FewTokens<kKind, DotT, kTokens>(w.panels + panel * w.panel_bytes, table, x, token, row, ahead,
                                    out);
    const size_t rows = HWY_MIN(kLanes, w.n_rows - first_row - row);
    for (size_t t = 0; t < n; ++t)
      hn::StoreN(out[t], df, y + (token + t) * y_stride + first_row + row, rows);
  }
}

// At most this many tokens at a time: 32 registers hold 8, 16 hold 4; the old targets take one, for the sake of build time.
constexpr size_t kFewTokens = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 1;

template <PanelKind kKind, class DotT>
HWY_INLINE void FewTokensPanels(const PanelMatrix& w, const Q8View& x, size_t panel_begin,
                                size_t panel_end, float* y, size_t y_stride) {
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    size_t token = 0;
    while (token < x.n_tokens) {
      const size_t left = x.n_tokens - token;
      // The last of several passes over a panel finds it in the cache, and memory idle: it asks for the next panel.
      const size_t ahead = token != 0 && left <= kFewTokens ? w.panel_bytes : kPrefetch;
      if (kFewTokens >= 8 && left > 4) {
        FewTokensPanel<kKind, DotT, HWY_MIN(8, kFewTokens)>(w, x, panel, token, ahead, y, y_stride);
        token += 8;
      } else if (kFewTokens >= 4 && left > 2) {
        FewTokensPanel<kKind, DotT, HWY_MIN(4, kFewTokens)>(w, x, panel, token, ahead, y, y_stride);
        token += 4;
      } else if (kFewTokens >= 2 && left > 1) {
        FewTokensPanel<kKind, DotT, HWY_MIN(2, kFewTokens)>(w, x, panel, token, ahead, y, y_stride);
        token += 2;
      } else {
        FewTokensPanel<kKind, DotT, 1>(w, x, panel, token, ahead, y, y_stride);
        token += 1;
      }
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_GEMV_INL_H_
