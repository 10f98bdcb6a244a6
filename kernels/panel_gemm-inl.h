// Many tokens x packed panels: 256 columns of two panels are decoded once into a block in L1 and multiplied with all tokens, tile
// by tile, before the next; partial results stay in a scratch in L2. The multiplying code depends on a GemmClass (where scales and offsets
// apply), not on the format: a new format adds only its decoding.
//
// Forms of a block, the same results:
//   bytes   CPUs with a 4-way dot instruction: lanes in quads; sums of a group times its scale.
//             a tile of 32 rows x 6 tokens, per group of 16: 48 dots, 8 weight loads, 30 broadcasts, 12 multiplies, 12 additions
//           Where the instruction wants one unsigned operand (vpdpbusd) lanes keep their offset, and a group's sums begin at
//           -offset * sum of its activations.
//   byte pairs   others, lanes up to 129: the same bytes; 2-way products, as many sums of two as fit int16 added before the
//           multiplication by the scale widens them.
//   words   others: scale * (u - offset), which fits int16, in pairs; one 2-way multiply-add and one addition a vector, no groups.
#if defined(LUTRA_PANEL_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_PANEL_GEMM_INL_H_
#undef LUTRA_PANEL_GEMM_INL_H_
#else
#define LUTRA_PANEL_GEMM_INL_H_
#endif

#include <hwy/cache_control.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/group_sums-inl.h"
#include "kernels/panel_decode-inl.h"
#include "kernels/panel_matmul.h"
#include "kernels/panel_round-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// kBytes: unsigned lanes, with their offset. kSignedBytes: less it.
enum class BlockForm { kBytes, kSignedBytes, kBytePairs, kWords };

template <class DotT>
constexpr BlockForm FormOf(const PanelKind& k) {
  if (DotT::kOneInstruction) return DotT::kSigned ? BlockForm::kSignedBytes : BlockForm::kBytes;
  return SafePairSums(k.greatest) > 0 ? BlockForm::kBytePairs : BlockForm::kWords;
}

// What the multiplying code must know of a format.
struct GemmClass {
  BlockForm form;
  int group;    // 16, 32, or 256: no integer scales
  int unit;     // 256 or 32
  bool scales;  // integer scales
  bool offset;  // lanes have an offset: bytes and byte pairs must undo it
  bool bias;
  int pair_group;  // columns of half a pair of biases, and of byte pairs' offsets: 16 or 32
  int pair_sums;   // byte pairs: SafePairSums of the lanes
  constexpr bool operator==(const GemmClass&) const = default;
  constexpr bool is_bytes() const {
    return form == BlockForm::kBytes || form == BlockForm::kSignedBytes;
  }
  constexpr size_t units() const { return 256 / static_cast<size_t>(unit); }
  constexpr size_t pairs() const {  // of a unit
    return static_cast<size_t>(unit) / (2 * static_cast<size_t>(pair_group));
  }
  // Columns whose sums begin at one value: bytes with an offset.
  constexpr int start_group() const { return scales ? group : unit; }
};

template <class DotT>
constexpr GemmClass ClassOf(const PanelKind& k) {
  const bool scales = k.scale_bits != 0;
  const BlockForm form = FormOf<DotT>(k);
  const bool pairs = form == BlockForm::kBytePairs;
  return {form,
          scales ? k.group : 256,
          k.unit,
          scales,
          k.offset != 0 && (form == BlockForm::kBytes || pairs),
          k.bias,
          k.pair_group(),
          pairs ? SafePairSums(k.greatest) : 0};
}

// Of units rounded to one scale (panel_round-inl.h): unsigned lanes with an offset of kRoundedOffset.
constexpr int kRoundedOffset = 128;
constexpr GemmClass RoundedClassOf(const PanelKind& k) {
  return {BlockForm::kBytes, 256, 256, false, true, k.bias, k.pair_group(), 0};
}

constexpr size_t kGemmPanels = 2;
constexpr size_t kGemmRows = kGemmPanels * kPanelRows;
constexpr size_t kGemmTokens =
    512;  // of one pass over a block: kGemmTokens x kGemmRows floats of scratch

// 256 columns of kGemmRows rows.
struct GemmBlock {
  union {
    alignas(64) uint8_t bytes[64][kGemmRows][4];  // [quad][row][4 columns]
    alignas(64)
        int16_t words[128][kGemmRows][2];  // [2 * quad + i][row]: columns i and i + 2 of the quad
  };
  alignas(64) int32_t scales[16][kGemmRows];  // [group]; byte pairs: (scale, scale) as int16
  // Of a pair of groups (of columns 32 p .. 32 p + 15 and the next 16 where groups have 16): byte pairs' -offset * scale; biases.
  alignas(64) int16_t offsets[8][kGemmRows][2];
  alignas(64) int16_t biases[8][kGemmRows][2];
  alignas(64) float supers[8][kGemmRows];  // [unit]
  alignas(64) float bias_supers[8][kGemmRows];
};

// The unit at `p` of the panel that gives rows [base, base + 16) of the block, as unit u of the block. kRounded: rounded to one scale.
template <PanelKind kKind, GemmClass kClass, bool kRounded>
HWY_INLINE void DecodeUnit(const uint8_t* HWY_RESTRICT p, const uint8_t* HWY_RESTRICT panel,
                           const Table<kKind>& table, size_t base, size_t u, GemmBlock& block) {
  const DI di;
  const DF df;
  const DU8 d8;
  constexpr bool kWords = kClass.form == BlockForm::kWords;
  constexpr bool kBytePairs = kClass.form == BlockForm::kBytePairs;
  constexpr size_t kGroupQuads = static_cast<size_t>(kKind.group) / 4;
  constexpr size_t kGroups = kKind.groups();
  const UnitFields<kKind> f(p);
  // The next block of the panel, while this one is multiplied.
  for (size_t i = 0; i < kKind.unit_bytes(); i += 64)
    hwy::Prefetch(p + kClass.units() * kKind.unit_bytes() + i);
  LUTRA_UNROLL(1)
  for (size_t row = 0; row < kPanelRows; row += kLanes) {
    const size_t r = base + row;
    VF super;
    if constexpr (kKind.super == SuperKind::kRow) {
      super = LoadSupers<SuperKind::kF32>(panel, row);
    } else {
      super = LoadSupers<kKind.super>(f.supers, row);
    }
    if constexpr (kKind.bias)
      hn::Store(LoadSupers<SuperKind::kF16>(f.bias_supers, row), df, block.bias_supers[u] + r);
    // Scales of the unit's groups.
    if constexpr (kKind.scale_bits != 0 && !kWords && !kRounded) {
      for (size_t g = 0; g < kGroups; ++g) {
        const VI scale = LoadScales<kKind, true>(f.scales, g, row);
        hn::Store(kBytePairs ? Pair(scale, scale) : scale, di, block.scales[u * kGroups + g] + r);
      }
    }
    // Pairs of groups (a unit of one group: of its halves).
    for (size_t pair = 0; pair < kClass.pairs(); ++pair) {
      const size_t to = u * kClass.pairs() + pair;
      const auto of_group = [&](size_t half)
                                HWY_ATTR { return kGroups == 1 ? 0 : 2 * pair + half; };
      if constexpr (kKind.offset != 0 && kBytePairs) {
        const auto minus_offset = hn::Set(di, -kKind.offset);
        VI scale[2] = {minus_offset, minus_offset};
        if constexpr (kKind.scale_bits != 0) {
          for (size_t i = 0; i < 2; ++i) {
            scale[i] = hn::Mul(LoadScales<kKind, true>(f.scales, of_group(i), row), minus_offset);
          }
        }
        hn::Store(Pair(scale[0], scale[1]), di, reinterpret_cast<int32_t*>(block.offsets[to][r]));
      }
      if constexpr (kKind.bias) {
        hn::Store(BiasPair<kKind>(f.biases, pair, row), di,
                  reinterpret_cast<int32_t*>(block.biases[to][r]));
      }
    }
    // Lanes.
    if constexpr (kRounded) {
      const VF factor = RoundUnit<kKind>(f, table, [&](size_t quad, VI8 lanes) HWY_ATTR {
        const auto offset = hn::Set(d8, static_cast<uint8_t>(kRoundedOffset));
        hn::Store(hn::Xor(hn::BitCast(d8, lanes), offset), d8, block.bytes[quad][r]);
      });
      hn::Store(hn::Mul(super, factor), df, block.supers[u] + r);
      continue;
    }
    hn::Store(super, df, block.supers[u] + r);
    const uint8_t* HWY_RESTRICT step = f.steps + 4 * row;
    for (size_t s = 0; s < kKind.steps(); ++s) {
      VU8 shift[2];
      LUTRA_UNROLL(2)
      for (size_t i = 0; i < 2; ++i)
        shift[i] = ShiftLanes<kKind>(f.shifts, (s * 8 + 4 * i) / kGroupQuads, row);
      const auto put = [&]<size_t kQuad>(std::integral_constant<size_t, kQuad>) HWY_ATTR {
        const size_t quad = (u * kKind.steps() + s) * 8 + kQuad;
        [[maybe_unused]] const size_t g = (s * 8 + kQuad) / kGroupQuads;
        VU8 lanes = Quad<kKind, static_cast<int>(kQuad)>(step, table);
        if constexpr (kKind.shift != 0) lanes = hn::Add(lanes, shift[kQuad / 4]);
        if constexpr (kClass.form == BlockForm::kSignedBytes && kKind.offset != 0)
          lanes = hn::Sub(lanes, hn::Set(d8, static_cast<uint8_t>(kKind.offset)));
        if constexpr (!kWords) {
          hn::Store(lanes, d8, block.bytes[quad][r]);
        } else {
          const DU16 du16;
          const DI16 d16;
          auto scale = hn::Set(di, 1);
          if constexpr (kKind.scale_bits != 0) scale = LoadScales<kKind, true>(f.scales, g, row);
          const auto scale16 = hn::BitCast(d16, Pair(scale, scale));
          const auto both = hn::BitCast(du16, lanes);
          const auto even = hn::BitCast(d16, hn::And(both, hn::Set(du16, uint16_t{0xFF})));
          const auto odd = hn::BitCast(d16, hn::ShiftRight<8>(both));
          const auto offset = hn::Set(d16, static_cast<int16_t>(kKind.offset));
          const auto word = [&](auto v) HWY_ATTR {
            if constexpr (kKind.offset != 0) v = hn::Sub(v, offset);
            if constexpr (kKind.scale_bits != 0) v = hn::Mul(v, scale16);
            return v;
          };
          hn::Store(word(even), d16, block.words[2 * quad][r]);
          hn::Store(word(odd), d16, block.words[2 * quad + 1][r]);
        }
      };
      [&]<size_t... kQuad>(std::index_sequence<kQuad...>) HWY_ATTR {
        (put(std::integral_constant<size_t, kQuad>{}), ...);
      }
      (std::make_index_sequence<8>{});
      step += kKind.step_bytes();
    }
  }
}

// Activations of a tile as the form of the block wants them.
struct TileInput {
  const int8_t* q;  // [token][256]
  const float* d;   // [token][256 / unit]
  // Sums of pair_group columns: [token][256 / pair_group].
  const int16_t* pair_sums;
  const int32_t* starts;  // bytes with an offset: [token][256 / start_group]
  const int16_t* words;   // [token][256] as pairs (0, 2), (1, 3) of every quad: [token][quad][2][2]
};

// sum += coefficients of pairs of groups times the activations' sums, for pairs [first, first + n).
template <size_t kVectors, size_t kTokens, size_t kStride>
HWY_INLINE void AddPairSums(const int16_t (&coefficients)[8][kGemmRows][2], size_t first, size_t n,
                            size_t row, const int16_t* HWY_RESTRICT pair_sums,
                            VI (&sum)[kVectors * kTokens]) {
  LUTRA_UNROLL(2)
  for (size_t pair = first; pair < first + n; ++pair) {
    VI v[kVectors];
    LUTRA_UNROLL(4)
    for (size_t j = 0; j < kVectors; ++j) {
      v[j] = hn::Load(DI(), reinterpret_cast<const int32_t*>(coefficients[pair][row + j * kLanes]));
    }
    LUTRA_UNROLL(12)
    for (size_t t = 0; t < kTokens; ++t) {
      const VI a = Broadcast4(pair_sums + t * kStride + 2 * pair);
      LUTRA_UNROLL(4)
      for (size_t j = 0; j < kVectors; ++j)
        sum[t * kVectors + j] = DotPairs(sum[t * kVectors + j], v[j], a);
    }
  }
}

// Whole tiles store results where they belong, which hides the time that lines so far apart take: where they have whole lines.
constexpr bool kStoresTiles = kLanes == 16;

// Where a tile's results are and where they go: both [token][row].
struct TileResults {
  const float* from;  // kGemmRows apart
  float* to;
  size_t to_stride;
};

// to[t] = fma(supers * d[t * d_stride], float(sum[t]), from[t]): the one rounding of a unit.
template <size_t kVectors, size_t kTokens>
HWY_INLINE void AddScaled(const float* HWY_RESTRICT supers, const float* HWY_RESTRICT d,
                          size_t d_stride, const VI (&sum)[kVectors * kTokens], size_t row,
                          const TileResults& y) {
  const DF df;
  LUTRA_UNROLL(12)
  for (size_t t = 0; t < kTokens; ++t) {
    const auto scale = hn::Set(df, d[t * d_stride]);
    LUTRA_UNROLL(4)
    for (size_t j = 0; j < kVectors; ++j) {
      const size_t r = row + j * kLanes;
      const auto super = hn::Load(df, supers + r);
      const auto old = hn::Load(df, y.from + t * kGemmRows + r);
      hn::StoreU(Fma(hn::Mul(super, scale), hn::ConvertTo(df, sum[t * kVectors + j]), old), df,
                 y.to + t * y.to_stride + r);
    }
  }
}

// sum += scale * 2-way products of the kQuads quads of group `group`; pair sums of kClass.pair_sums quads share one multiplication.
template <GemmClass kClass, size_t kVectors, size_t kTokens>
HWY_INLINE void GroupBytePairs(const GemmBlock& w, size_t row, const int8_t* HWY_RESTRICT q,
                               size_t group, size_t n_quads, VI (&sum)[kVectors * kTokens]) {
  const DI di;
  const DI16 d16;
  constexpr size_t kN = kVectors * kTokens;
  constexpr size_t kGroupQuads = static_cast<size_t>(HWY_MIN(kClass.group, kClass.unit)) / 4;
  constexpr size_t kSums = HWY_MIN(HWY_MIN(static_cast<size_t>(kClass.pair_sums), kGroupQuads), 4);
  for (size_t k = 0; k < n_quads; k += kSums) {
    hn::Vec<DI16> pairs[kN];
    const auto add = [&]<size_t i>(std::integral_constant<size_t, i>) HWY_ATTR {
      const size_t quad = group * n_quads + k + i;
      VU8 v[kVectors];
      LUTRA_UNROLL(4)
      for (size_t j = 0; j < kVectors; ++j) v[j] = hn::Load(DU8(), w.bytes[quad][row + j * kLanes]);
      LUTRA_UNROLL(12)
      for (size_t t = 0; t < kTokens; ++t) {
        const auto a = hn::BitCast(DI8(), Broadcast4(q + t * 256 + 4 * quad));
        LUTRA_UNROLL(4)
        for (size_t j = 0; j < kVectors; ++j) {
          auto& to = pairs[t * kVectors + j];
          const auto two = hn::SatWidenMulPairwiseAdd(d16, v[j], a);
          to = i == 0 ? two : hn::Add(to, two);
        }
      }
    };
    [&]<size_t... i>(std::index_sequence<i...>) HWY_ATTR {
      (add(std::integral_constant<size_t, i>{}), ...);
    }
    (std::make_index_sequence<kSums>{});
    LUTRA_UNROLL(4)
    for (size_t j = 0; j < kVectors; ++j) {
      auto scale = hn::Set(d16, int16_t{1});
      if constexpr (kClass.scales)
        scale = hn::BitCast(d16, hn::Load(di, w.scales[group] + row + j * kLanes));
      LUTRA_UNROLL(12)
      for (size_t t = 0; t < kTokens; ++t) {
        VI& to = sum[t * kVectors + j];
        to = hn::Add(to, hn::WidenMulPairwiseAdd(di, pairs[t * kVectors + j], scale));
      }
    }
  }
}

// y[t][row ..] += the products of one block with kTokens tokens, for kVectors vectors of rows from `row`; what the last addition gives goes to `out`.
template <GemmClass kClass, class DotT, size_t kVectors, size_t kTokens>
HWY_INLINE void GemmTile(const GemmBlock& w, size_t row, const TileInput& x, size_t n_units,
                         float* y, float* out, size_t out_stride) {
  const DI di;
  constexpr bool kWords = kClass.form == BlockForm::kWords;
  constexpr bool kStarts = kClass.form == BlockForm::kBytes && kClass.offset;
  constexpr size_t kUnits = kClass.units();
  constexpr size_t kUnitQuads = static_cast<size_t>(kClass.unit) / 4;
  constexpr size_t kGroupQuads =
      kWords ? kUnitQuads : HWY_MIN(static_cast<size_t>(kClass.group) / 4, kUnitQuads);
  constexpr size_t kPairSums = 256 / static_cast<size_t>(kClass.pair_group);
  constexpr size_t kN = kVectors * kTokens;
  // The values at which sums of start group i begin.
  const auto begin = [&](size_t i, VI(&to)[kN]) HWY_ATTR {
    LUTRA_UNROLL(12)
    for (size_t t = 0; t < kTokens; ++t) {
      VI start = hn::Zero(di);
      if constexpr (kStarts) start = hn::Set(di, x.starts[t * (256 / kClass.start_group()) + i]);
      LUTRA_UNROLL(4)
      for (size_t j = 0; j < kVectors; ++j) to[t * kVectors + j] = start;
    }
  };
  for (size_t u = 0; u < n_units; ++u) {
    VI sum[kN];
    if constexpr (kClass.scales) {
      LUTRA_UNROLL(24)
      for (size_t i = 0; i < kN; ++i) sum[i] = hn::Zero(di);
    } else {
      begin(u, sum);
    }
    for (size_t g = 0; g < kUnitQuads / kGroupQuads; ++g) {
      VI acc[kN];
      if constexpr (kClass.is_bytes() && kClass.scales)
        begin(u * (kUnitQuads / kGroupQuads) + g, acc);
      if constexpr (kClass.form == BlockForm::kBytePairs) {
        GroupBytePairs<kClass, kVectors, kTokens>(w, row, x.q, u * (kUnitQuads / kGroupQuads) + g,
                                                  kGroupQuads, sum);
        continue;
      }
      const size_t first = u * kUnitQuads + g * kGroupQuads;
      if constexpr (kWords) {
        LUTRA_UNROLL(8)
        for (size_t i = 2 * first; i < 2 * (first + kGroupQuads); ++i) {
          VI v[kVectors];
          LUTRA_UNROLL(4)
          for (size_t j = 0; j < kVectors; ++j)
            v[j] = hn::Load(di, reinterpret_cast<const int32_t*>(w.words[i][row + j * kLanes]));
          LUTRA_UNROLL(12)
          for (size_t t = 0; t < kTokens; ++t) {
            const VI a = Broadcast4(x.words + t * 256 + 2 * i);
            LUTRA_UNROLL(4)
            for (size_t j = 0; j < kVectors; ++j)
              sum[t * kVectors + j] = DotPairs(sum[t * kVectors + j], v[j], a);
          }
        }
        continue;
      }
      LUTRA_UNROLL(2)
      for (size_t quad = first; quad < first + kGroupQuads; quad += 4) {
        // The next tile's activations and results come while this one's are multiplied.
        if constexpr (kVectors * kLanes == kGemmRows) {
          hwy::Prefetch(x.q + kTokens * 256 + quad * 32);
          hwy::Prefetch(x.q + kTokens * 256 + quad * 32 + 64);
          hwy::Prefetch(y + kTokens * kGemmRows + quad * 4);
        }
        LUTRA_UNROLL(4)
        for (size_t k = 0; k < 4; ++k) {
          VU8 v[kVectors];
          LUTRA_UNROLL(4)
          for (size_t j = 0; j < kVectors; ++j)
            v[j] = hn::Load(DU8(), w.bytes[quad + k][row + j * kLanes]);
          LUTRA_UNROLL(12)
          for (size_t t = 0; t < kTokens; ++t) {
            const auto a = hn::BitCast(DI8(), Broadcast4(x.q + t * 256 + 4 * (quad + k)));
            LUTRA_UNROLL(4)
            for (size_t j = 0; j < kVectors; ++j) {
              VI& to = kClass.scales ? acc[t * kVectors + j] : sum[t * kVectors + j];
              to = DotT::Dot(to, v[j], a);
            }
          }
        }
      }
      if constexpr (kClass.is_bytes() && kClass.scales) {
        LUTRA_UNROLL(4)
        for (size_t j = 0; j < kVectors; ++j) {
          const VI scale =
              hn::Load(di, w.scales[u * (kUnitQuads / kGroupQuads) + g] + row + j * kLanes);
          LUTRA_UNROLL(12)
          for (size_t t = 0; t < kTokens; ++t) {
            sum[t * kVectors + j] =
                hn::Add(sum[t * kVectors + j], hn::Mul(acc[t * kVectors + j], scale));
          }
        }
      }
    }
    if constexpr (kClass.form == BlockForm::kBytePairs && kClass.offset) {
      AddPairSums<kVectors, kTokens, kPairSums>(w.offsets, u * kClass.pairs(), kClass.pairs(), row,
                                                x.pair_sums, sum);
    }
    const TileResults to_y{y, y, kGemmRows};
    const TileResults last =
        kStoresTiles && u + 1 == n_units ? TileResults{y, out, out_stride} : to_y;
    AddScaled<kVectors, kTokens>(w.supers[u], x.d + u, kUnits, sum, row, kClass.bias ? to_y : last);
    if constexpr (kClass.bias) {
      LUTRA_UNROLL(12)
      for (size_t i = 0; i < kN; ++i) sum[i] = hn::Zero(di);
      AddPairSums<kVectors, kTokens, kPairSums>(w.biases, u * kClass.pairs(), kClass.pairs(), row,
                                                x.pair_sums, sum);
      AddScaled<kVectors, kTokens>(w.bias_supers[u], x.d + u, kUnits, sum, row, last);
    }
  }
}

// Register tile: 32 registers hold 2 x 6 accumulators and as many sums, 16 hold 1 x 6.
constexpr size_t kTileVectors = kLanes == 16 ? 2 : 1;
constexpr size_t kTileTokens = 6;

// scratch[t][row] + block x kTokens tokens from row `at` of the activations' block, to `out`.
template <GemmClass kClass, class DotT, size_t kTokens>
HWY_INLINE void GemmBlockTimesTile(const GemmBlock& w, const Q8View& x, int offset, size_t at,
                                   size_t n_units, float* scratch, float* out, size_t out_stride) {
  constexpr bool kWords = kClass.form == BlockForm::kWords;
  constexpr bool kStarts = kClass.form == BlockForm::kBytes && kClass.offset;
  constexpr size_t kStartSums = 256 / static_cast<size_t>(kClass.start_group());
  constexpr bool kPairsOf32 = kClass.pair_group == 32 && (kClass.bias || kClass.offset);
  alignas(64) int16_t words[kWords ? kTokens * 256 : 16];
  alignas(64) int32_t starts[kStarts ? kTokens * kStartSums : 16];
  alignas(64) int16_t sums_of_32[kPairsOf32 ? kTokens * 8 : 8];
  const int16_t* HWY_RESTRICT sums = x.sums + at * 16;
  const TileInput tile{x.q + at * 256, x.d + at * kClass.units(), kPairsOf32 ? sums_of_32 : sums,
                       starts, words};
  for (size_t i = 0; i < kTokens * 16; i += 32) hwy::Prefetch(sums + kTokens * 16 + i);
  if constexpr (kStarts) {
    LUTRA_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      if constexpr (kStartSums == 1) {
        starts[t] = -offset * x.totals[at + t];
      } else {
        GroupSums<kClass.start_group()>(sums + 16 * t, -offset, starts + t * kStartSums);
      }
    }
  }
  if constexpr (kPairsOf32) {
    for (size_t t = 0; t < kTokens; ++t) SumsOf32(sums + 16 * t, sums_of_32 + 8 * t);
  }
  if constexpr (kWords) {
    const hn::ScalableTag<int32_t> di;
    const hn::Repartition<int16_t, decltype(di)> d16;
    for (size_t i = 0; i < kTokens * 64; i += hn::Lanes(di)) {
      const auto quads =
          hn::BitCast(d16, hn::LoadU(di, reinterpret_cast<const int32_t*>(tile.q + 4 * i)));
      const auto even = hn::BitCast(di, hn::ShiftRight<8>(hn::ShiftLeft<8>(quads)));
      const auto odd = hn::BitCast(di, hn::ShiftRight<8>(quads));
      hn::StoreInterleaved2(even, odd, di, reinterpret_cast<int32_t*>(words + 4 * i));
    }
  }
  for (size_t row = 0; row < kGemmRows; row += kTileVectors * kLanes)
    GemmTile<kClass, DotT, kTileVectors, kTokens>(w, row, tile, n_units, scratch, out, out_stride);
}

// y [n_tokens, n_rows], y_stride apart, from scratch.
inline HWY_NOINLINE void StoreRows(const float* HWY_RESTRICT scratch, size_t n_tokens,
                                   size_t n_rows, float* HWY_RESTRICT y, size_t y_stride) {
  const DF df;
  for (size_t t = 0; t < n_tokens; ++t, y += y_stride, scratch += kGemmRows) {
    size_t r = 0;
    for (; r + kLanes <= n_rows; r += kLanes) hn::StoreU(hn::Load(df, scratch + r), df, y + r);
    if (r < n_rows) hn::StoreN(hn::Load(df, scratch + r), df, y + r, n_rows - r);
  }
}

// scratch[t][row] += block x tokens [0, n_tokens) of block b of x from `token`. offset: of unsigned lanes. y: where the first n_rows of the results go,
// y_stride apart, if this is the last block, else nullptr.
template <GemmClass kClass, class DotT>
HWY_NOINLINE void GemmBlockTimesTokens(const GemmBlock& w, const Q8View& x, int offset, size_t b,
                                       size_t token, size_t n_tokens, size_t n_units,
                                       float* scratch, size_t n_rows, float* y, size_t y_stride) {
  const size_t at = b * x.n_tokens + token;
  // Whole tiles of whole blocks go there by themselves.
  const bool direct = kStoresTiles && y != nullptr && n_rows == kGemmRows;
  size_t stored = 0;
  for (size_t t = 0; t < n_tokens; t += kTileTokens) {
    const size_t left = n_tokens - t;
    float* part = scratch + t * kGemmRows;
    // On wide machines the last tile is as narrow as what is left.
    if constexpr (kLanes >= 8) {
      if (left <= 2) {
        GemmBlockTimesTile<kClass, DotT, 2>(w, x, offset, at + t, n_units, part, part, kGemmRows);
        continue;
      }
      if (left <= 4) {
        GemmBlockTimesTile<kClass, DotT, 4>(w, x, offset, at + t, n_units, part, part, kGemmRows);
        continue;
      }
    }
    const bool whole = direct && left >= kTileTokens;
    if (whole) stored = t + kTileTokens;
    GemmBlockTimesTile<kClass, DotT, kTileTokens>(w, x, offset, at + t, n_units, part,
                                                  whole ? y + t * y_stride : part,
                                                  whole ? y_stride : kGemmRows);
  }
  if (y != nullptr && stored < n_tokens) {
    StoreRows(scratch + stored * kGemmRows, n_tokens - stored, n_rows, y + stored * y_stride,
              y_stride);
  }
}

template <PanelKind kKind, class DotT, bool kRounded = false>
void ManyTokensPanels(const PanelMatrix& w, const Q8View& x, size_t panel_begin, size_t panel_end,
                      float* y, size_t y_stride) {
  constexpr GemmClass kClass = kRounded ? RoundedClassOf(kKind) : ClassOf<DotT>(kKind);
  constexpr size_t kUnits = kClass.units();
  const Table<kKind> table(w.table);
  GemmBlock block;
  std::memset(static_cast<void*>(&block), 0, sizeof block);  // the rows of an absent second panel
  alignas(64) float scratch[(kGemmTokens + kTileTokens) * kGemmRows];
  const size_t n_all_units = x.n_cols / static_cast<size_t>(kKind.unit);
  for (size_t token = 0; token < x.n_tokens; token += kGemmTokens) {
    const size_t n_tokens = HWY_MIN(kGemmTokens, x.n_tokens - token);
    for (size_t panel = panel_begin; panel < panel_end; panel += kGemmPanels) {
      const size_t n_panels = HWY_MIN(kGemmPanels, panel_end - panel);
      const size_t first_row = panel * kPanelRows;
      std::fill_n(scratch, (n_tokens + kTileTokens - 1) / kTileTokens * kTileTokens * kGemmRows,
                  0.0f);
      for (size_t b = 0; b * kUnits < n_all_units; ++b) {
        const size_t n_units = HWY_MIN(kUnits, n_all_units - b * kUnits);
        for (size_t i = 0; i < n_panels; ++i) {
          const uint8_t* bytes = w.panels + (panel + i) * w.panel_bytes;
          for (size_t u = 0; u < n_units; ++u) {
            const uint8_t* unit =
                bytes + kKind.panel_header_bytes() + (b * kUnits + u) * kKind.unit_bytes();
            DecodeUnit<kKind, kClass, kRounded>(unit, bytes, table, i * kPanelRows, u, block);
          }
        }
        const bool last = (b + 1) * kUnits >= n_all_units;
        GemmBlockTimesTokens<kClass, DotT>(
            block, x, kRounded ? kRoundedOffset : kKind.offset, b, token, n_tokens, n_units,
            scratch, HWY_MIN(n_panels * kPanelRows, w.n_rows - first_row),
            last ? y + token * y_stride + first_row : nullptr, y_stride);
      }
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_GEMM_INL_H_
