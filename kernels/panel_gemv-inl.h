// Few tokens x packed panels: indexes go from their planes through the table to the dot product without leaving registers.
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

#include "kernels/group_sums-inl.h"
#include "kernels/panel_decode-inl.h"
#include "kernels/panel_matmul.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// acc[t][j] += quads [kQuad, kEnd) of a step of panel j; q points to the step's first activation of the first token.
template <PanelKind kKind, class DotT, size_t kPanels, size_t kTokens, int kQuad, int kEnd>
HWY_INLINE void DotQuads(const uint8_t* HWY_RESTRICT step, size_t panel_stride,
                         const Table<kKind>& table, const VU8 (&shift)[kPanels],
                         const int8_t* HWY_RESTRICT q, VI (&acc)[kTokens * kPanels]) {
  if constexpr (kQuad < kEnd) {
    VU8 u[kPanels];
    LUTRA_UNROLL(2)
    for (size_t j = 0; j < kPanels; ++j) {
      u[j] = Quad<kKind, kQuad>(step + j * panel_stride, table);
      if constexpr (DotT::kSigned && kKind.offset != 0 && !kKind.table)
        u[j] = hn::Sub(u[j], hn::Set(DU8(), static_cast<uint8_t>(kKind.offset)));
      if constexpr (kKind.shift != 0 && kTokens > 1) u[j] = hn::Add(u[j], shift[j]);
    }
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      const VI8 a = hn::BitCast(DI8(), Broadcast4(q + Q8View::kBlockCols * t + 4 * kQuad));
      LUTRA_UNROLL(2)
      for (size_t j = 0; j < kPanels; ++j)
        acc[t * kPanels + j] = DotT::Dot(acc[t * kPanels + j], u[j], a);
    }
    DotQuads<kKind, DotT, kPanels, kTokens, kQuad + 1, kEnd>(step, panel_stride, table, shift, q,
                                                             acc);
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
        VI8 a = hn::BitCast(di8, Broadcast4(q + Q8View::kBlockCols * t + 4 * (kQuad + kAt)));
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

// What a pass over panels asks memory for, since hardware prefetchers lose the weights' stream among the activations' of several tokens:
// what lies `bytes` beyond every `every`-th block of 256 columns, beginning with block `phase`. Where two panels are read side by side and the
// stream is their own (`own`), the end of the first is followed by the panel after the second's.
struct Ahead {
  size_t bytes, every, phase;
  bool own;
};
constexpr size_t kPrefetch = 4096;

// Pass `pass` of n_passes over a group of panels of group_bytes. A single pass asks for its own stream, kPrefetch ahead. Of several passes, all but
// the first find the weights in the cache and memory idle: each asks for a part of the next group; the first of all groups must stream itself.
HWY_INLINE Ahead AheadOf(size_t pass, size_t n_passes, size_t group_bytes, bool first_group) {
  if (n_passes == 1 || (first_group && pass == 0)) return {kPrefetch, 1, 0, true};
  return first_group ? Ahead{group_bytes, n_passes - 1, pass - 1, false}
                     : Ahead{group_bytes, n_passes, pass, false};
}

// y[t][j] for the kTokens tokens from `token` and the rows [row, row + lanes) of kPanels panels, panel_stride bytes apart.
template <PanelKind kKind, class DotT, size_t kPanels, size_t kTokens>
HWY_INLINE void FewTokens(const uint8_t* HWY_RESTRICT panel, size_t panel_stride,
                          const Table<kKind>& table, const Q8View& x, size_t token, size_t row,
                          const Ahead& ahead, VF (&y)[kTokens * kPanels]) {
  const DI di;
  const DF df;
  constexpr size_t kGroups = 256 / static_cast<size_t>(kKind.group);  // a block
  constexpr size_t kUnits = 256 / static_cast<size_t>(kKind.unit);
  constexpr int kGroupQuads = kKind.group / 4;
  constexpr size_t kGroupsPerStep = 8 / kGroupQuads;
  constexpr size_t kPairGroup = static_cast<size_t>(kKind.pair_group());  // of biases
  constexpr bool kPairs = !DotT::kOneInstruction;
  static_assert(!kPairs || kPanels == 1);
  constexpr int kOffset = DotT::kSigned ? 0 : kKind.offset;
  constexpr bool kStarts = !kPairs && (kOffset != 0 || (kKind.shift != 0 && kTokens == 1));
  constexpr size_t kN = kTokens * kPanels;
  VF row_super[kPanels];
  LUTRA_UNROLL(2)
  for (size_t j = 0; j < kPanels; ++j) {
    row_super[j] = hn::Zero(df);
    if constexpr (kKind.super == SuperKind::kRow)
      row_super[j] = LoadSupers<SuperKind::kF32>(panel + j * panel_stride, row);
  }
  const uint8_t* HWY_RESTRICT p = panel + kKind.panel_header_bytes();
  size_t until_ahead = ahead.phase;
  LUTRA_UNROLL(16)
  for (size_t i = 0; i < kN; ++i) y[i] = hn::Zero(df);

  const size_t n_all_units = x.n_cols / static_cast<size_t>(kKind.unit);
  for (size_t b = 0; b * kUnits < n_all_units; ++b) {
    const size_t at = b * x.n_tokens + token;
    const int8_t* HWY_RESTRICT q = x.q + at * 256;
    const float* HWY_RESTRICT d = x.d + at * kUnits;
    alignas(64) int32_t starts[kTokens][kGroups];
    alignas(64) int32_t shifted_starts[kTokens][kGroups];
    alignas(16) int16_t sums_of_32[kTokens][8];
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      if constexpr (kStarts) GroupSums<kKind.group>(x.sums + (at + t) * 16, -kOffset, starts[t]);
      if constexpr (!kPairs && kKind.shift != 0 && kTokens == 1) {
        GroupSums<kKind.group>(x.sums + (at + t) * 16, kKind.shift - kOffset, shifted_starts[t]);
      }
      if constexpr (kKind.bias && kPairGroup == 32) SumsOf32(x.sums + (at + t) * 16, sums_of_32[t]);
    }
    const size_t n_units = HWY_MIN(kUnits, n_all_units - b * kUnits);
    size_t block_group = 0;
    const bool asks = until_ahead == 0;
    until_ahead = asks ? ahead.every - 1 : until_ahead - 1;
    size_t ahead_of[kPanels];
    ahead_of[kPanels - 1] = ahead.bytes;
    if constexpr (kPanels == 2) {
      const bool ends = ahead.own && static_cast<size_t>(p - panel) + kPrefetch >= panel_stride;
      ahead_of[0] = ahead.bytes + (ends ? 2 * panel_stride : 0);
    }
    for (size_t u = 0; u < n_units; ++u) {
      const UnitFields<kKind> f(p);
      if (asks) {
        for (size_t i = 0; i < kKind.header_bytes(); i += 64) {
          LUTRA_UNROLL(2)
          for (size_t j = 0; j < kPanels; ++j)
            hwy::Prefetch(p + j * panel_stride + ahead_of[j] + i);
        }
      }
      const uint8_t* step = f.steps + 4 * row;
      VI sum[kN];
      LUTRA_UNROLL(16)
      for (size_t i = 0; i < kN; ++i) sum[i] = hn::Zero(di);
      for (size_t s = 0; s < kKind.steps(); ++s) {
        if (asks) {
          for (size_t i = 0; i < kKind.step_bytes(); i += 64) {
            LUTRA_UNROLL(2)
            for (size_t j = 0; j < kPanels; ++j)
              hwy::Prefetch(step + j * panel_stride + ahead_of[j] + i);
          }
        }
        LUTRA_UNROLL(2)
        for (size_t h = 0; h < kGroupsPerStep; ++h) {
          const size_t g = s * kGroupsPerStep + h;
          VU8 shift[kPanels];
          LUTRA_UNROLL(2)
          for (size_t j = 0; j < kPanels; ++j) {
            shift[j] = hn::Zero(DU8());
            if constexpr (kKind.shift != 0 && (kPairs || kTokens > 1))
              shift[j] = ShiftLanes<kKind>(f.shifts + j * panel_stride, g, row);
          }
          if constexpr (kPairs) {
            auto scale16 = hn::Set(DI16(), int16_t{1});
            if constexpr (kKind.scale_bits != 0) {
              const VI scale = LoadScales<kKind, true>(f.scales, g, row);
              scale16 = hn::BitCast(DI16(), Pair(scale, scale));
            }
            if constexpr (kGroupsPerStep == 1) {
              DotQuadPairs<kKind, kTokens, 0, 8>(step, table, shift[0], q, scale16, sum);
            } else if (h == 0) {
              DotQuadPairs<kKind, kTokens, 0, 4>(step, table, shift[0], q, scale16, sum);
            } else {
              DotQuadPairs<kKind, kTokens, 4, 8>(step, table, shift[0], q, scale16, sum);
            }
          } else {
            VI acc[kN];
            if constexpr (kKind.shift != 0 && kTokens == 1) {
              LUTRA_UNROLL(2)
              for (size_t j = 0; j < kPanels; ++j) {
                acc[j] = hn::IfThenElse(ShiftMask<kKind>(f.shifts + j * panel_stride, g, row),
                                        hn::Set(di, shifted_starts[0][block_group]),
                                        hn::Set(di, starts[0][block_group]));
              }
            } else {
              LUTRA_UNROLL(8)
              for (size_t t = 0; t < kTokens; ++t) {
                VI start = hn::Zero(di);
                if constexpr (kStarts) start = hn::Set(di, starts[t][block_group]);
                LUTRA_UNROLL(2)
                for (size_t j = 0; j < kPanels; ++j) acc[t * kPanels + j] = start;
              }
            }
            if constexpr (kGroupsPerStep == 1) {
              DotQuads<kKind, DotT, kPanels, kTokens, 0, 8>(step, panel_stride, table, shift, q,
                                                            acc);
            } else if (h == 0) {
              DotQuads<kKind, DotT, kPanels, kTokens, 0, 4>(step, panel_stride, table, shift, q,
                                                            acc);
            } else {
              DotQuads<kKind, DotT, kPanels, kTokens, 4, 8>(step, panel_stride, table, shift, q,
                                                            acc);
            }
            LUTRA_UNROLL(2)
            for (size_t j = 0; j < kPanels; ++j) {
              VI scale = hn::Zero(di);
              if constexpr (kKind.scale_bits != 0)
                scale = LoadScales<kKind, true>(f.scales + j * panel_stride, g, row);
              LUTRA_UNROLL(8)
              for (size_t t = 0; t < kTokens; ++t) {
                VI& a = acc[t * kPanels + j];
                if constexpr (kKind.scale_bits != 0) a = hn::Mul(a, scale);
                sum[t * kPanels + j] = hn::Add(sum[t * kPanels + j], a);
                Pin(sum[t * kPanels + j]);
              }
            }
          }
          ++block_group;
        }
        step += kKind.step_bytes();
        q += 32;
      }
      LUTRA_UNROLL(2)
      for (size_t j = 0; j < kPanels; ++j) {
        VF super = row_super[j];
        if constexpr (kKind.super != SuperKind::kRow)
          super = LoadSupers<kKind.super>(f.supers + j * panel_stride, row);
        LUTRA_UNROLL(8)
        for (size_t t = 0; t < kTokens; ++t) {
          VF& to = y[t * kPanels + j];
          to = Fma(hn::Mul(super, hn::Set(df, d[t * kUnits + u])),
                   hn::ConvertTo(df, sum[t * kPanels + j]), to);
        }
      }
      if constexpr (kKind.bias) {
        LUTRA_UNROLL(2)
        for (size_t j = 0; j < kPanels; ++j) {
          const VF bias_super = LoadSupers<SuperKind::kF16>(f.bias_supers + j * panel_stride, row);
          VI bias[kTokens];
          LUTRA_UNROLL(8)
          for (size_t t = 0; t < kTokens; ++t) bias[t] = hn::Zero(di);
          constexpr size_t kUnitPairs = static_cast<size_t>(kKind.unit) / (2 * kPairGroup);
          for (size_t pair = 0; pair < kUnitPairs; ++pair) {
            const VI two = BiasPair<kKind>(f.biases + j * panel_stride, pair, row);
            LUTRA_UNROLL(8)
            for (size_t t = 0; t < kTokens; ++t) {
              const int16_t* from = kPairGroup == 32 ? sums_of_32[t] : x.sums + (at + t) * 16;
              bias[t] = DotPairs(bias[t], two, Broadcast4(from + 2 * (u * kUnitPairs + pair)));
            }
          }
          LUTRA_UNROLL(8)
          for (size_t t = 0; t < kTokens; ++t) {
            VF& to = y[t * kPanels + j];
            to = Fma(hn::Mul(bias_super, hn::Set(df, d[t * kUnits + u])),
                     hn::ConvertTo(df, bias[t]), to);
          }
        }
      }
      p += kKind.unit_bytes();
    }
  }
}

// Tokens [token, token + kTokens) x kPanels panels; those past the last token are computed from whatever is there and dropped. A second panel that
// the matrix has not is the first again.
template <PanelKind kKind, class DotT, size_t kPanels, size_t kTokens>
HWY_NOINLINE void FewTokensPanel(const PanelMatrix& w, const Q8View& x, size_t panel,
                                 size_t n_panels, size_t token, const Ahead& ahead,
                                 float* HWY_RESTRICT y, size_t y_stride) {
  const DF df;
  const Table<kKind> table(w.table, DotT::kOneInstruction && !DotT::kSigned ? 0 : kKind.offset);
  const size_t n = HWY_MIN(kTokens, x.n_tokens - token);
  for (size_t row = 0; row < kPanelRows; row += kLanes) {
    if (panel * kPanelRows + row >= w.n_rows) break;
    VF out[kTokens * kPanels];
    FewTokens<kKind, DotT, kPanels, kTokens>(w.panels + panel * w.panel_bytes,
                                             n_panels > 1 ? w.panel_bytes : 0, table, x, token, row,
                                             ahead, out);
    for (size_t j = 0; j < n_panels; ++j) {
      const size_t first_row = (panel + j) * kPanelRows + row;
      const size_t rows = HWY_MIN(kLanes, w.n_rows - first_row);
      for (size_t t = 0; t < n; ++t)
        hn::StoreN(out[t * kPanels + j], df, y + (token + t) * y_stride + first_row, rows);
    }
  }
}

// At most this many tokens at a time of one panel: 32 registers hold 8, 16 hold 4; the old targets take one, for the sake of build time.
constexpr size_t kFewTokens = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 1;

template <PanelKind kKind, class DotT>
HWY_INLINE void FewTokensPanels(const PanelMatrix& w, const Q8View& x, size_t panel_begin,
                                size_t panel_end, float* y, size_t y_stride) {
  // 32 registers also hold 6 tokens of two panels, which share the activations' broadcasts: these bound 8 of one. That pays from 5 tokens on but
  // for 7 and 8, which would walk the weights twice.
  constexpr bool kTwoPanels = DotT::kOneInstruction && kLanes == 16;
  const bool two = kTwoPanels && x.n_tokens > 4 && x.n_tokens != 7 && x.n_tokens != 8;
  // Tokens of the next pass if `left` are left: with two panels all passes together compute at most one too many.
  const auto next = [&](size_t left) HWY_ATTR -> size_t {
    if (two) return left <= 4 || left == 7 || left == 8 ? 4 : 6;
    return left > 4   ? kFewTokens
           : left > 2 ? HWY_MIN(4, kFewTokens)
           : left > 1 ? HWY_MIN(2, kFewTokens)
                      : 1;
  };
  size_t n_passes = 0;
  for (size_t token = 0; token < x.n_tokens; token += next(x.n_tokens - token)) ++n_passes;
  const size_t together = two ? 2 : 1;
  for (size_t panel = panel_begin; panel < panel_end; panel += together) {
    const size_t n_panels = HWY_MIN(together, panel_end - panel);
    size_t token = 0;
    for (size_t pass = 0; pass < n_passes; ++pass) {
      const Ahead ahead = AheadOf(pass, n_passes, together * w.panel_bytes, panel == panel_begin);
      const size_t now = next(x.n_tokens - token);
      const auto multiply = [&]<size_t kPanels, size_t kTokens>() HWY_ATTR {
        FewTokensPanel<kKind, DotT, kPanels, kTokens>(w, x, panel, n_panels, token, ahead, y,
                                                      y_stride);
      };
      if constexpr (kTwoPanels) {
        if (now == 6) multiply.template operator()<2, 6>();
        if (now == 4 && two) multiply.template operator()<2, 4>();
      }
      if constexpr (kFewTokens >= 8) {
        if (now == 8) multiply.template operator()<1, 8>();
      }
      if constexpr (kFewTokens >= 4) {
        if (now == 4 && !two) multiply.template operator()<1, 4>();
        if (now == 2) multiply.template operator()<1, 2>();
      }
      if (now == 1) multiply.template operator()<1, 1>();
      token += now;
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_GEMV_INL_H_
