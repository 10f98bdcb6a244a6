// Many tokens x packed panels: 256 columns of two panels are decoded once into a block in L1 and multiplied with all tokens, tile
// by tile, before the next; partial results stay in a scratch in L2. The multiplying code depends on a GemmClass (where scales and offsets
// apply), not on the format: a new format adds only its decoding.
//
// Forms of a block, the same results:
//   bytes   CPUs with a 4-way dot instruction: lanes in quads; sums of a group times its scale.
//             a tile of 32 rows x 6 tokens, per group of 16: 48 dots, 8 weight loads, 24 broadcasts, 12 multiplies, 12 additions
//           Where the instruction wants one unsigned operand (vpdpbusd) and lanes are signed, the activations are made unsigned, + 128: what
//           that adds is the same for all tokens, 128 * sum of scale * lane, and sums begin at its negative.
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

#include "kernels/panel_decode-inl.h"
#include "kernels/panel_matmul.h"
#include "kernels/panel_round-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// What the multiplying code must know of a format.
struct GemmClass {
  int group;    // 16, 32, or 256: no integer scales
  int unit;     // 256 or 32
  bool scales;  // integer scales
  bool offset;  // lanes - offset: byte pairs must correct
  bool bias;
  int pair_sums;  // without a 4-way instruction: SafePairSums of the lanes; 0 there means `words`
  constexpr bool operator==(const GemmClass&) const = default;
};

template <class DotT>
constexpr GemmClass ClassOf(const PanelKind& k) {
  const bool scales = k.scale_bits != 0;
  const int pair_sums = DotT::kOneInstruction ? 0 : SafePairSums(k.greatest);
  return {scales ? k.group : 256,          k.unit, scales,
          k.offset != 0 && pair_sums != 0, k.bias, pair_sums};
}

// kBytes: unsigned lanes without an offset. kSignedBytes: lanes less their offset; kShiftedInput: so, and activations + 128.
enum class BlockForm { kBytes, kSignedBytes, kShiftedInput, kBytePairs, kWords };
constexpr bool IsBytes(BlockForm form) {
  return form != BlockForm::kBytePairs && form != BlockForm::kWords;
}

template <class DotT>
constexpr BlockForm FormOf(const PanelKind& k) {
  if (DotT::kOneInstruction)
    return DotT::kSigned   ? BlockForm::kSignedBytes
           : k.offset != 0 ? BlockForm::kShiftedInput
                           : BlockForm::kBytes;
  return SafePairSums(k.greatest) > 0 ? BlockForm::kBytePairs : BlockForm::kWords;
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
  alignas(64) int32_t starts[8][kGemmRows];   // [unit], kShiftedInput: -128 * sum of scale * lane
  alignas(64) int16_t
      offsets[8][kGemmRows]
             [2];  // byte pairs: -offset * scale of columns 32 p .. 32 p + 15 and the next 16
  alignas(64) int16_t biases[8][kGemmRows][2];
  alignas(64) float supers[8][kGemmRows];  // [unit]
  alignas(64) float bias_supers[8][kGemmRows];
};

// The unit at `p` of the panel that gives rows [base, base + 16) of the block, as unit u of the block. kFast: rounded (panel_round-inl.h).
template <PanelKind kKind, class DotT, BlockForm kForm, bool kFast>
HWY_INLINE void DecodeUnit(const uint8_t* HWY_RESTRICT p, const uint8_t* HWY_RESTRICT panel,
                           const Table<kKind>& table, size_t base, size_t u, GemmBlock& block) {
  const DI di;
  const DF df;
  const DU8 d8;
  constexpr bool kWords = kForm == BlockForm::kWords;
  constexpr size_t kGroupQuads = static_cast<size_t>(kKind.group) / 4;
  const UnitFields<kKind> f(p);
  // The next block of the panel, while this one is multiplied.
  for (size_t i = 0; i < kKind.unit_bytes(); i += 64)
    hwy::Prefetch(p + 256 / static_cast<size_t>(kKind.unit) * kKind.unit_bytes() + i);
  LUTRA_UNROLL(1)
  for (size_t row = 0; row < kPanelRows; row += kLanes) {
    const size_t r = base + row;
    VF super;
    if constexpr (kKind.super == SuperKind::kRow) {
      super = LoadSupers<SuperKind::kF32>(panel, row);
    } else {
      super = LoadSupers<kKind.super>(f.supers, row);
    }
    hn::Store(super, df, block.supers[u] + r);
    if constexpr (kKind.bias)
      hn::Store(LoadSupers<SuperKind::kF16>(f.bias_supers, row), df, block.bias_supers[u] + r);
    // Scales of the unit's groups; corrections and biases in pairs of 16 columns.
    constexpr size_t kPairs = static_cast<size_t>(kKind.unit) / 32;
    for (size_t pair = 0; pair < kPairs; ++pair) {
      const size_t to = u * kPairs + pair;
      constexpr size_t kTwo = kKind.group == 16 ? 2 : 1;
      VI scale[2] = {hn::Set(di, 1), hn::Set(di, 1)};
      VI bias[2] = {hn::Set(di, 1), hn::Set(di, 1)};
      for (size_t i = 0; i < kTwo; ++i) {
        if constexpr (kKind.scale_bits != 0) {
          scale[i] = LoadScales<kKind, true>(f.scales, kTwo * pair + i, row);
          if constexpr (!kWords && !kFast) {
            hn::Store(kForm == BlockForm::kBytePairs ? Pair(scale[i], scale[i]) : scale[i], di,
                      block.scales[kTwo * to + i] + r);
          }
          if constexpr (kKind.bias)
            bias[i] = LoadScales<kKind, false>(f.biases, kTwo * pair + i, row);
        }
      }
      if constexpr (kTwo == 1) {
        scale[1] = scale[0];
        bias[1] = bias[0];
      }
      if constexpr (kKind.offset != 0 && kForm == BlockForm::kBytePairs) {
        const auto minus_offset = hn::Set(di, -kKind.offset);
        hn::Store(Pair(hn::Mul(scale[0], minus_offset), hn::Mul(scale[1], minus_offset)), di,
                  reinterpret_cast<int32_t*>(block.offsets[to][r]));
      }
      if constexpr (kKind.bias)
        hn::Store(Pair(bias[0], bias[1]), di, reinterpret_cast<int32_t*>(block.biases[to][r]));
    }
    // Lanes.
    VI start = hn::Zero(di);
    if constexpr (kFast) {
      const VF factor = RoundUnit<kKind>(f, table, [&](size_t quad, VI8 lanes) HWY_ATTR {
        start = DotT::Dot(start, hn::Set(d8, uint8_t{128}), lanes);
        hn::Store(hn::BitCast(d8, lanes), d8, block.bytes[quad][r]);
      });
      hn::Store(hn::Mul(super, factor), df, block.supers[u] + r);
      hn::Store(hn::Neg(start), di, block.starts[u] + r);
      continue;
    }
    const uint8_t* HWY_RESTRICT step = f.steps + 4 * row;
    for (size_t s = 0; s < kKind.steps(); ++s) {
      VI lane_sums[2] = {hn::Zero(di), hn::Zero(di)};
      VU8 shift[2];
      LUTRA_UNROLL(2)
      for (size_t i = 0; i < 2; ++i)
        shift[i] = ShiftLanes<kKind>(f.shifts, (s * 8 + 4 * i) / kGroupQuads, row);
      const auto put = [&]<size_t kQuad>(std::integral_constant<size_t, kQuad>) HWY_ATTR {
        const size_t quad = (u * kKind.steps() + s) * 8 + kQuad;
        [[maybe_unused]] const size_t g = (s * 8 + kQuad) / kGroupQuads;
        VU8 lanes = Quad<kKind, static_cast<int>(kQuad)>(step, table);
        if constexpr (kKind.shift != 0) lanes = hn::Add(lanes, shift[kQuad / 4]);
        if constexpr ((kForm == BlockForm::kSignedBytes || kForm == BlockForm::kShiftedInput) &&
                      kKind.offset != 0) {
          lanes = hn::Sub(lanes, hn::Set(d8, static_cast<uint8_t>(kKind.offset)));
        }
        if constexpr (kForm == BlockForm::kShiftedInput) {
          lane_sums[kQuad / 4] =
              DotT::Dot(lane_sums[kQuad / 4], hn::Set(d8, uint8_t{128}), hn::BitCast(DI8(), lanes));
        }
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
      if constexpr (kForm == BlockForm::kShiftedInput) {
        for (size_t i = 0; i < 2; ++i) {
          if constexpr (kKind.scale_bits != 0) {
            lane_sums[i] = hn::Mul(lane_sums[i], LoadScales<kKind, true>(
                                                     f.scales, (s * 8 + 4 * i) / kGroupQuads, row));
          }
          start = hn::Sub(start, lane_sums[i]);
        }
      }
    }
    if constexpr (kForm == BlockForm::kShiftedInput) hn::Store(start, di, block.starts[u] + r);
  }
}

// sum + pairs of int16 products.
HWY_INLINE VI DotPairs(VI sum, VI a, VI b) {
  const DI16 d16;
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
  VI unused = sum;
  return hn::ReorderWidenMulAccumulate(DI(), hn::BitCast(d16, a), hn::BitCast(d16, b), sum, unused);
#else
  return hn::Add(sum, hn::WidenMulPairwiseAdd(DI(), hn::BitCast(d16, a), hn::BitCast(d16, b)));
#endif
}

HWY_INLINE VI Broadcast4(const void* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return hn::Set(DI(), four);
}

// Activations of a tile as the form of the block wants them.
template <size_t kTokens>
struct TileInput {
  const int8_t* q;       // [token][256]; kShiftedInput: + 128
  const float* d;        // [token][256 / unit]
  const int16_t* sums;   // [token][16]
  const int16_t* words;  // [token][256] as pairs (0, 2), (1, 3) of every quad: [token][quad][2][2]
};

// sum += coefficients of 32 columns each (two of 16) times the activations' sums, for pairs [first, first + n).
template <size_t kVectors, size_t kTokens>
HWY_INLINE void AddPairSums(const int16_t (&coefficients)[8][kGemmRows][2], size_t first, size_t n,
                            size_t row, const TileInput<kTokens>& x,
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
      const VI a = Broadcast4(x.sums + t * 16 + 2 * pair);
      LUTRA_UNROLL(4)
      for (size_t j = 0; j < kVectors; ++j)
        sum[t * kVectors + j] = DotPairs(sum[t * kVectors + j], v[j], a);
    }
  }
}

// y[t] = fma(supers * d[t * d_stride], float(sum[t]), y[t]): the one rounding of a unit.
template <size_t kVectors, size_t kTokens>
HWY_INLINE void AddScaled(const float* HWY_RESTRICT supers, const float* HWY_RESTRICT d,
                          size_t d_stride, const VI (&sum)[kVectors * kTokens],
                          float* HWY_RESTRICT y) {
  const DF df;
  LUTRA_UNROLL(12)
  for (size_t t = 0; t < kTokens; ++t) {
    const auto scale = hn::Set(df, d[t * d_stride]);
    LUTRA_UNROLL(4)
    for (size_t j = 0; j < kVectors; ++j) {
      float* to = y + t * kGemmRows + j * kLanes;
      const auto super = hn::Load(df, supers + j * kLanes);
      hn::Store(
          Fma(hn::Mul(super, scale), hn::ConvertTo(df, sum[t * kVectors + j]), hn::Load(df, to)),
          df, to);
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

// y[t][row ..] += the products of one block with kTokens tokens, for kVectors vectors of rows from `row`.
template <GemmClass kClass, class DotT, BlockForm kForm, size_t kVectors, size_t kTokens>
HWY_INLINE void GemmTile(const GemmBlock& w, size_t row, const TileInput<kTokens>& x,
                         size_t n_units, float* HWY_RESTRICT y) {
  const DI di;
  constexpr bool kWords = kForm == BlockForm::kWords;
  constexpr bool kBytes = IsBytes(kForm);
  constexpr size_t kUnits = 256 / static_cast<size_t>(kClass.unit);
  constexpr size_t kUnitQuads = static_cast<size_t>(kClass.unit) / 4;
  constexpr size_t kGroupQuads =
      kWords ? kUnitQuads : HWY_MIN(static_cast<size_t>(kClass.group) / 4, kUnitQuads);
  constexpr size_t kN = kVectors * kTokens;
  for (size_t u = 0; u < n_units; ++u) {
    VI sum[kN];
    LUTRA_UNROLL(24)
    for (size_t i = 0; i < kN; ++i) {
      sum[i] = kForm == BlockForm::kShiftedInput
                   ? hn::Load(di, w.starts[u] + row + i % kVectors * kLanes)
                   : hn::Zero(di);
    }
    for (size_t g = 0; g < kUnitQuads / kGroupQuads; ++g) {
      VI acc[kN];
      if constexpr (kBytes && kClass.scales) {
        LUTRA_UNROLL(24)
        for (size_t i = 0; i < kN; ++i) acc[i] = hn::Zero(di);
      }
      if constexpr (kForm == BlockForm::kBytePairs) {
        GroupBytePairs<kClass, kVectors, kTokens>(w, row, x.q, u * (kUnitQuads / kGroupQuads) + g,
                                                  kGroupQuads, sum);
        continue;
      }
      LUTRA_UNROLL(8)
      for (size_t k = 0; k < kGroupQuads; ++k) {
        const size_t quad = u * kUnitQuads + g * kGroupQuads + k;
        if constexpr (kWords) {
          LUTRA_UNROLL(2)
          for (size_t i = 0; i < 2; ++i) {
            VI v[kVectors];
            LUTRA_UNROLL(4)
            for (size_t j = 0; j < kVectors; ++j) {
              v[j] = hn::Load(
                  di, reinterpret_cast<const int32_t*>(w.words[2 * quad + i][row + j * kLanes]));
            }
            LUTRA_UNROLL(12)
            for (size_t t = 0; t < kTokens; ++t) {
              const VI a = Broadcast4(x.words + t * 256 + 4 * quad + 2 * i);
              LUTRA_UNROLL(4)
              for (size_t j = 0; j < kVectors; ++j)
                sum[t * kVectors + j] = DotPairs(sum[t * kVectors + j], v[j], a);
            }
          }
        } else {
          VU8 v[kVectors];
          LUTRA_UNROLL(4)
          for (size_t j = 0; j < kVectors; ++j)
            v[j] = hn::Load(DU8(), w.bytes[quad][row + j * kLanes]);
          LUTRA_UNROLL(12)
          for (size_t t = 0; t < kTokens; ++t) {
            const auto a = hn::BitCast(DI8(), Broadcast4(x.q + t * 256 + 4 * quad));
            LUTRA_UNROLL(4)
            for (size_t j = 0; j < kVectors; ++j) {
              VI& to = kClass.scales ? acc[t * kVectors + j] : sum[t * kVectors + j];
              if constexpr (kForm == BlockForm::kShiftedInput) {
                to = DotT::Dot(to, hn::BitCast(DU8(), a), hn::BitCast(DI8(), v[j]));
              } else {
                to = DotT::Dot(to, v[j], a);
              }
            }
          }
        }
      }
      if constexpr (kBytes && kClass.scales) {
        LUTRA_UNROLL(4)
        for (size_t j = 0; j < kVectors; ++j) {
          const VI scale = hn::Load(di, w.scales[g] + row + j * kLanes);
          LUTRA_UNROLL(12)
          for (size_t t = 0; t < kTokens; ++t) {
            sum[t * kVectors + j] =
                hn::Add(sum[t * kVectors + j], hn::Mul(acc[t * kVectors + j], scale));
          }
        }
      }
    }
    constexpr size_t kPairs = static_cast<size_t>(kClass.unit) / 32;
    if constexpr (kClass.offset)
      AddPairSums<kVectors, kTokens>(w.offsets, u * kPairs, kPairs, row, x, sum);
    AddScaled<kVectors, kTokens>(w.supers[u] + row, x.d + u, kUnits, sum, y + row);
    if constexpr (kClass.bias) {
      LUTRA_UNROLL(12)
      for (size_t i = 0; i < kN; ++i) sum[i] = hn::Zero(di);
      AddPairSums<kVectors, kTokens>(w.biases, u * kPairs, kPairs, row, x, sum);
      AddScaled<kVectors, kTokens>(w.bias_supers[u] + row, x.d + u, kUnits, sum, y + row);
    }
  }
}

// Register tile: 32 registers hold 2 x 6 accumulators and as many sums, 16 hold 1 x 6.
constexpr size_t kTileVectors = kLanes == 16 ? 2 : 1;
constexpr size_t kTileTokens = 6;

// scratch[t][row] += block x kTokens tokens from row `at` of the activations' block.
template <GemmClass kClass, class DotT, BlockForm kForm, size_t kTokens>
HWY_INLINE void GemmBlockTimesTile(const GemmBlock& w, const Q8View& x, size_t at, size_t n_units,
                                   float* HWY_RESTRICT scratch) {
  constexpr bool kWords = kForm == BlockForm::kWords;
  constexpr bool kShifted = kForm == BlockForm::kShiftedInput;
  constexpr size_t kUnits = 256 / static_cast<size_t>(kClass.unit);
  alignas(64) int16_t words[kWords ? kTokens * 256 : 16];
  alignas(64) int8_t shifted[kShifted ? kTokens * 256 : 64];
  const TileInput<kTokens> tile{kShifted ? shifted : x.q + at * 256, x.d + at * kUnits,
                                x.sums + at * 16, words};
  if constexpr (kShifted) {
    const DU8 d8;
    for (size_t i = 0; i < kTokens * 256; i += hn::Lanes(d8)) {
      const auto q = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(x.q) + at * 256 + i);
      hn::Store(hn::Xor(q, hn::Set(d8, uint8_t{128})), d8, reinterpret_cast<uint8_t*>(shifted) + i);
    }
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
  for (size_t row = 0; row < kGemmRows; row += kTileVectors * kLanes) {
    GemmTile<kClass, DotT, kForm, kTileVectors, kTokens>(w, row, tile, n_units, scratch);
  }
}

// scratch[t][row] += block x tokens [0, n_tokens) of block b of x from `token`.
template <GemmClass kClass, class DotT, BlockForm kForm>
HWY_NOINLINE void GemmBlockTimesTokens(const GemmBlock& w, const Q8View& x, size_t b, size_t token,
                                       size_t n_tokens, size_t n_units,
                                       float* HWY_RESTRICT scratch) {
  const size_t at = b * x.n_tokens + token;
  for (size_t t = 0; t < n_tokens; t += kTileTokens) {
    const size_t left = n_tokens - t;
    float* HWY_RESTRICT y = scratch + t * kGemmRows;
    // On wide machines the last tile is as narrow as what is left.
    if constexpr (kLanes >= 8) {
      if (left <= 2) {
        GemmBlockTimesTile<kClass, DotT, kForm, 2>(w, x, at + t, n_units, y);
        continue;
      }
      if (left <= 4) {
        GemmBlockTimesTile<kClass, DotT, kForm, 4>(w, x, at + t, n_units, y);
        continue;
      }
    }
    GemmBlockTimesTile<kClass, DotT, kForm, kTileTokens>(w, x, at + t, n_units, y);
  }
}

template <PanelKind kKind, class DotT, bool kFast = false>
void ManyTokensPanels(const PanelMatrix& w, const Q8View& x, size_t panel_begin, size_t panel_end,
                      float* y, size_t y_stride) {
  constexpr BlockForm kForm = kFast ? BlockForm::kShiftedInput : FormOf<DotT>(kKind);
  constexpr GemmClass kClass =
      kFast ? GemmClass{256, 256, false, false, kKind.bias, 0} : ClassOf<DotT>(kKind);
  // Signed lanes fit int8.
  static_assert(kForm != BlockForm::kShiftedInput || kFast ||
                (kKind.greatest - kKind.offset <= 127 && kKind.magnitude <= 128));
  constexpr size_t kUnits = 256 / static_cast<size_t>(kKind.unit);
  const Table<kKind> table(w.table);
  GemmBlock block;
  std::memset(static_cast<void*>(&block), 0, sizeof block);  // the rows of an absent second panel
  alignas(64) float scratch[(kGemmTokens + kTileTokens) * kGemmRows];
  const size_t n_all_units = x.n_cols / static_cast<size_t>(kKind.unit);
  for (size_t token = 0; token < x.n_tokens; token += kGemmTokens) {
    const size_t n_tokens = HWY_MIN(kGemmTokens, x.n_tokens - token);
    for (size_t panel = panel_begin; panel < panel_end; panel += kGemmPanels) {
      const size_t n_panels = HWY_MIN(kGemmPanels, panel_end - panel);
      std::fill_n(scratch, (n_tokens + kTileTokens - 1) / kTileTokens * kTileTokens * kGemmRows,
                  0.0f);
      for (size_t b = 0; b * kUnits < n_all_units; ++b) {
        const size_t n_units = HWY_MIN(kUnits, n_all_units - b * kUnits);
        for (size_t i = 0; i < n_panels; ++i) {
          const uint8_t* bytes = w.panels + (panel + i) * w.panel_bytes;
          for (size_t u = 0; u < n_units; ++u) {
            const uint8_t* unit =
                bytes + kKind.panel_header_bytes() + (b * kUnits + u) * kKind.unit_bytes();
            DecodeUnit<kKind, DotT, kForm, kFast>(unit, bytes, table, i * kPanelRows, u, block);
          }
        }
        GemmBlockTimesTokens<kClass, DotT, kForm>(block, x, b, token, n_tokens, n_units, scratch);
      }
      const size_t first_row = panel * kPanelRows;
      const size_t n_rows = HWY_MIN(n_panels * kPanelRows, w.n_rows - first_row);
      for (size_t t = 0; t < n_tokens; ++t) {
        std::memcpy(y + (token + t) * y_stride + first_row, scratch + t * kGemmRows,
                    n_rows * sizeof(float));
      }
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_GEMM_INL_H_
