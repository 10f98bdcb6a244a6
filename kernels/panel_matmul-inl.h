// Products of packed panels (kernels/panel.h) with quantized activations, per target. Integer-exact inside a unit, then one
// fused multiply-add a unit in index order:
//   y = fma(super * d, float(sum_g scale_g * sum_k lane_k * q_k), y)
//   y = fma(bias_super * d, float(sum_g bias_g * sum_k q_k), y)        formats with a bias
// so every target, tile shape and instruction gives the same bits (kernels/exact.h is the scalar definition).
//
// Instructions per 64 weights (one chunk: 16 rows x 4 weights), AVX-512 with VNNI, one token, from the code below:
//   load + unpack: 4 bits 0.5 load, 1 and, 0.5 shift; 2 bits 0.25 load, 1 and, 0.75 shift; 3, 5, 6 bits: + 1 shift, 1 and-or, a
//   quarter or half load; table: 1 pshufb (5 bits 2 + test + blend without VBMI, 1 vpermb with), + 1 masked add where tables are
//   two; dot: 1 vpdpbusd with its activation broadcast from memory. Per group (4 or 8 chunks): 1 load-extend of the scales,
//   1 broadcast, 1 multiply, 1 add.
#if defined(LUTRA_PANEL_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_PANEL_MATMUL_INL_H_
#undef LUTRA_PANEL_MATMUL_INL_H_
#else
#define LUTRA_PANEL_MATMUL_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/fixed_order-inl.h"
#include "kernels/panel.h"
#include "kernels/panel_matmul.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

using DU8 = hn::Repartition<uint8_t, DI>;
using DI8 = hn::Repartition<int8_t, DI>;
using DU16 = hn::Repartition<uint16_t, DI>;
using DI16 = hn::Repartition<int16_t, DI>;
using VU8 = hn::Vec<DU8>;
using VI8 = hn::Vec<DI8>;

// acc[row] += sum of 4 u8 x i8 products, exactly. Three ways to do it; the results are the same.
struct DotGeneric {
  template <PanelKind kKind>
  static HWY_INLINE VI Dot(VI acc, VU8 u, VI8 a) {
#if HWY_TARGET <= HWY_AVX3_DL
    return hn::SumOfMulQuadAccumulate(DI(), u, a, acc);
#else
    const DI16 d16;
    if constexpr (kKind.pairs_fit_int16) {
      const auto pairs = hn::SatWidenMulPairwiseAdd(d16, u, a);
      return hn::Add(acc, hn::WidenMulPairwiseAdd(DI(), pairs, hn::Set(d16, int16_t{1})));
    } else {
      // Even and odd bytes apart: products of 16-bit numbers cannot saturate.
      const auto u16 = hn::BitCast(DU16(), u);
      const auto a16 = hn::BitCast(d16, a);
      const auto u_even = hn::BitCast(d16, hn::And(u16, hn::Set(DU16(), uint16_t{0xFF})));
      const auto u_odd = hn::BitCast(d16, hn::ShiftRight<8>(u16));
      const auto a_even = hn::ShiftRight<8>(hn::ShiftLeft<8>(a16));
      const auto a_odd = hn::ShiftRight<8>(a16);
      const auto even = hn::WidenMulPairwiseAdd(DI(), u_even, a_even);
      const auto odd = hn::WidenMulPairwiseAdd(DI(), u_odd, a_odd);
      return hn::Add(acc, hn::Add(even, odd));
    }
#endif
  }
};

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
// vpdpbusd on CPUs that have it without the rest of Highway's next target: AVX-VNNI beside AVX2 (Alder Lake), AVX512_VNNI beside
// AVX3 (Cascade Lake). Assembly, because the instruction is all we want of those extensions.
struct DotVnni {
  template <PanelKind kKind>
  static HWY_INLINE VI Dot(VI acc, VU8 u, VI8 a) {
#if HWY_TARGET == HWY_AVX2
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.raw) : "x"(u.raw), "x"(a.raw));
#else
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.raw) : "v"(u.raw), "v"(a.raw));
#endif
    return acc;
  }
};
#endif

// Moves bit `kFrom` of every byte to bit `kTo`, then keeps the `kMask` bits there.
template <int kFrom, int kTo, int kMask>
HWY_INLINE VU8 Field(VU8 v) {
  const DU8 d8;
  const DU16 d16;
  auto w = hn::BitCast(d16, v);
  if constexpr (kFrom > kTo) w = hn::ShiftRight<kFrom - kTo>(w);
  if constexpr (kFrom < kTo) w = hn::ShiftLeft<kTo - kFrom>(w);
  return hn::And(hn::BitCast(d8, w), hn::Set(d8, static_cast<uint8_t>(kMask << kTo)));
}

// The lookup table in registers.
template <PanelKind kKind>
struct Table {
  static constexpr size_t kRegisters = kKind.bits == 6 ? 4 : kKind.bits == 5 ? 2 : 1;
  VU8 part[kRegisters];  // 16 entries each, in every 128-bit lane
#if HWY_TARGET <= HWY_AVX3_DL
  VU8 all;
#endif
  HWY_INLINE explicit Table(const uint8_t* table) {
    for (size_t i = 0; i < kRegisters; ++i) part[i] = hn::LoadDup128(DU8(), table + 16 * i);
#if HWY_TARGET <= HWY_AVX3_DL
    all = hn::LoadU(DU8(), table);
#endif
  }
};

// Unsigned lanes of quad kQuad (4 weights x the part's rows) of a step.
template <PanelKind kKind, int kQuad>
HWY_INLINE VU8 Quad(const uint8_t* HWY_RESTRICT step, const Table<kKind>& table, VU8 shift) {
  const DU8 d8;
  constexpr int kLow = kKind.bits == 3 ? 2 : kKind.bits == 5 || kKind.bits == 6 ? 4 : kKind.bits;
  constexpr int kPerChunk = 8 / kLow;
  VU8 u = hn::LoadU(d8, step + 64 * (kQuad / kPerChunk));
  if constexpr (kLow < 8) u = Field<kLow * (kQuad % kPerChunk), 0, (1 << kLow) - 1>(u);
  const uint8_t* high_plane = step + 64 * kLow;
  VU8 high = u;
  if constexpr (kKind.bits == 3) {
    u = hn::Or(u, Field<kQuad, 2, 1>(hn::LoadU(d8, high_plane)));
  } else if constexpr (kKind.bits == 5) {
    high = Field<kQuad, 4, 1>(hn::LoadU(d8, high_plane));
  } else if constexpr (kKind.bits == 6) {
    high = Field<2 * (kQuad % 4), 4, 3>(hn::LoadU(d8, high_plane + 64 * (kQuad / 4)));
  }
  if constexpr (!kKind.table) {
    if constexpr (kKind.bits == 5 || kKind.bits == 6) u = hn::Or(u, high);
  } else if constexpr (kKind.bits <= 4) {
    u = hn::TableLookupBytes(table.part[0], u);
  } else {
#if HWY_TARGET <= HWY_AVX3_DL
    u = hn::TableLookupLanes(table.all, hn::IndicesFromVec(d8, hn::Or(u, high)));
#else
    const auto bit4 = hn::TestBit(high, hn::Set(d8, uint8_t{16}));
    if constexpr (kKind.bits == 5) {
      u = hn::IfThenElse(bit4, hn::TableLookupBytes(table.part[1], u),
                         hn::TableLookupBytes(table.part[0], u));
    } else {
      const auto bit5 = hn::TestBit(high, hn::Set(d8, uint8_t{32}));
      const auto low = hn::IfThenElse(bit4, hn::TableLookupBytes(table.part[1], u),
                                      hn::TableLookupBytes(table.part[0], u));
      const auto up = hn::IfThenElse(bit4, hn::TableLookupBytes(table.part[3], u),
                                     hn::TableLookupBytes(table.part[2], u));
      u = hn::IfThenElse(bit5, up, low);
    }
#endif
  }
  if constexpr (kKind.shift != 0) u = hn::Add(u, shift);
  return u;
}

// acc[t] += quads [kQuad, kEnd) of a step; q points to the step's first quad of the first token.
template <PanelKind kKind, class DotT, size_t kTokens, size_t kStride, int kQuad, int kEnd>
HWY_INLINE void DotQuads(const uint8_t* HWY_RESTRICT step, const Table<kKind>& table, VU8 shift,
                         const int8_t* HWY_RESTRICT q, VI (&acc)[kTokens]) {
  if constexpr (kQuad < kEnd) {
    const VU8 u = Quad<kKind, kQuad>(step, table, shift);
LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      int32_t four;
      std::memcpy(&four, q + 4 * (kQuad * kStride + t), 4);
      acc[t] = DotT::template Dot<kKind>(acc[t], u, hn::BitCast(DI8(), hn::Set(DI(), four)));
    }
    DotQuads<kKind, DotT, kTokens, kStride, kQuad + 1, kEnd>(step, table, shift, q, acc);
  }
}

template <SuperKind kSuper>
HWY_INLINE VF LoadSupers(const uint8_t* p, size_t row) {
  const DF df;
  const hn::Rebind<uint16_t, DF> du16;
  if constexpr (kSuper == SuperKind::kF16) {
    const hn::Rebind<hwy::float16_t, DF> d16;
    return hn::PromoteTo(df, hn::BitCast(d16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p) + row)));
  } else if constexpr (kSuper == SuperKind::kBf16) {
    const hn::Rebind<hwy::bfloat16_t, DF> d16;
    return hn::PromoteTo(df, hn::BitCast(d16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p) + row)));
  } else {
    return hn::LoadU(df, reinterpret_cast<const float*>(p) + row);
  }
}

// Rows [row, row + lanes) of group `group`: integer scales, or biases, as int32.
template <PanelKind kKind, bool kSigned>
HWY_INLINE VI LoadScales(const uint8_t* p, size_t group, size_t row) {
  const DI di;
  const hn::Rebind<uint8_t, DI> du8;
  if constexpr (kKind.scale_bits == 8) {
    const auto bytes = hn::LoadU(du8, p + group * kPanelRows + row);
    if constexpr (kSigned) {
      return hn::PromoteTo(di, hn::BitCast(hn::Rebind<int8_t, DI>(), bytes));
    } else {
      return hn::PromoteTo(di, bytes);
    }
  } else {
    auto v = hn::PromoteTo(di, hn::LoadU(du8, p + group / 2 * kPanelRows + row));
    v = group % 2 == 0 ? hn::And(v, hn::Set(di, 15)) : hn::ShiftRight<4>(v);
    if constexpr (kSigned && kKind.scale_zero != 0) v = hn::Sub(v, hn::Set(di, kKind.scale_zero));
    return v;
  }
}

// kShift in the 4 bytes of every row whose bit is set, else 0.
template <PanelKind kKind>
HWY_INLINE VU8 ShiftLanes(const uint8_t* p, size_t group, size_t row) {
  const DI di;
  if constexpr (kKind.shift != 0) {
    uint16_t bits;
    std::memcpy(&bits, p + 2 * group, 2);
    const auto row_bit = hn::Shl(hn::Set(di, 1), hn::Iota(di, static_cast<int32_t>(row)));
    const auto on = hn::TestBit(hn::Set(di, bits), row_bit);
    return hn::BitCast(DU8(), hn::IfThenElseZero(on, hn::Set(di, 0x01010101 * kKind.shift)));
  } else {
    return hn::Zero(DU8());
  }
}

constexpr int Log2(int power) { return power <= 1 ? 0 : 1 + Log2(power / 2); }

// -offset * sum of the group's activations: what the accumulator starts with, so that biased lanes come out right.
template <PanelKind kKind>
HWY_INLINE VI StartOf(int32_t minus_sum) {
  if constexpr (kKind.offset == 0) {
    return hn::Zero(DI());
  } else {
    return hn::ShiftLeft<Log2(kKind.offset)>(hn::Set(DI(), minus_sum));
  }
}

// kTokens tokens of a tile of kStride x the rows [row, row + lanes) of one panel. q, d and minus_sum point to the first of the
// tokens in the tile.
template <PanelKind kKind, class DotT, size_t kTokens, size_t kStride>
HWY_INLINE void Tile(const uint8_t* HWY_RESTRICT panel, const Table<kKind>& table,
                     const int8_t* HWY_RESTRICT q, const float* HWY_RESTRICT d,
                     const int32_t* HWY_RESTRICT minus_sum, size_t n_units, size_t row,
                     VF (&y)[kTokens]) {
  const DI di;
  const DF df;
  constexpr size_t kGroupQuads = static_cast<size_t>(kKind.group / 4);
  constexpr size_t kGroupsPerStep = 8 / kGroupQuads;
  VF row_super = hn::Zero(df);
  if constexpr (kKind.super == SuperKind::kRow) row_super = LoadSupers<SuperKind::kF32>(panel, row);
  const uint8_t* HWY_RESTRICT p = panel + kKind.panel_header_bytes();
  for (size_t t = 0; t < kTokens; ++t) y[t] = hn::Zero(df);

  for (size_t u = 0; u < n_units; ++u) {
    const uint8_t* supers = p;
    const uint8_t* bias_supers = supers + kKind.super_bytes();
    const uint8_t* scales = bias_supers + kKind.bias_super_bytes();
    const uint8_t* biases = scales + kKind.scale_bytes();
    const uint8_t* shifts = biases + kKind.bias_bytes();
    const uint8_t* step = p + kKind.header_bytes() + 4 * row;
    VI sum[kTokens];
    VI bias[kTokens];
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      sum[t] = hn::Zero(di);
      bias[t] = hn::Zero(di);
    }
    for (size_t s = 0; s < kKind.steps(); ++s) {
      LUTRA_UNROLL(2)
      for (size_t h = 0; h < kGroupsPerStep; ++h) {
        const size_t g = s * kGroupsPerStep + h;
        VI acc[kTokens];
        LUTRA_UNROLL(8)
        for (size_t t = 0; t < kTokens; ++t) acc[t] = StartOf<kKind>(minus_sum[t]);
        const VU8 shift = ShiftLanes<kKind>(shifts, g, row);
        if constexpr (kGroupsPerStep == 1) {
          DotQuads<kKind, DotT, kTokens, kStride, 0, 8>(step, table, shift, q, acc);
        } else if (h == 0) {
          DotQuads<kKind, DotT, kTokens, kStride, 0, 4>(step, table, shift, q, acc);
        } else {
          DotQuads<kKind, DotT, kTokens, kStride, 4, 8>(step, table, shift, q, acc);
        }
        if constexpr (kKind.scale_bits == 0) {
          LUTRA_UNROLL(8)
          for (size_t t = 0; t < kTokens; ++t) sum[t] = hn::Add(sum[t], acc[t]);
        } else {
          const VI scale = LoadScales<kKind, true>(scales, g, row);
          LUTRA_UNROLL(8)
          for (size_t t = 0; t < kTokens; ++t) sum[t] = hn::Add(sum[t], hn::Mul(acc[t], scale));
        }
        if constexpr (kKind.bias) {
          VI b = hn::Set(di, 1);
          if constexpr (kKind.scale_bits != 0) b = LoadScales<kKind, false>(biases, g, row);
          LUTRA_UNROLL(8)
          for (size_t t = 0; t < kTokens; ++t) {
            bias[t] = hn::Sub(bias[t], hn::Mul(b, hn::Set(di, minus_sum[t])));
          }
        }
        minus_sum += kStride;
      }
      step += kKind.step_bytes();
      q += 32 * kStride;
    }
    VF super = row_super;
    if constexpr (kKind.super != SuperKind::kRow) super = LoadSupers<kKind.super>(supers, row);
    VF bias_super = hn::Zero(df);
    if constexpr (kKind.bias) bias_super = LoadSupers<SuperKind::kF16>(bias_supers, row);
    LUTRA_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      const auto da = hn::Set(df, d[t]);
      y[t] = Fma(hn::Mul(super, da), hn::ConvertTo(df, sum[t]), y[t]);
      if constexpr (kKind.bias) y[t] = Fma(hn::Mul(bias_super, da), hn::ConvertTo(df, bias[t]), y[t]);
    }
    d += kStride;
    p += kKind.unit_bytes();
  }
}

// Tokens [sub, sub + kTokens) of the tile of kStride tokens that begins at `tile`, x one panel.
template <PanelKind kKind, class DotT, size_t kTokens, size_t kStride>
HWY_NOINLINE void Tokens(const PanelMatrix& w, const Q8View& x, size_t panel, size_t tile, size_t sub,
                         float* HWY_RESTRICT y, size_t y_stride) {
  const DF df;
  const Table<kKind> table(w.table);
  const uint8_t* bytes = w.panels + panel * w.panel_bytes;
  const size_t first_row = panel * kPanelRows;
  const size_t n_units = x.n_cols / static_cast<size_t>(kKind.unit);
  const int32_t* sums = kKind.group == 16 ? x.minus_sum16 : x.minus_sum32;
  sums += tile * (x.n_cols / static_cast<size_t>(kKind.group)) + sub;
  for (size_t row = 0; row < kPanelRows; row += kLanes) {
    if (first_row + row >= w.n_rows) break;
    VF out[kTokens];
    Tile<kKind, DotT, kTokens, kStride>(bytes, table, x.q + tile * x.n_cols + 4 * sub, x.d + tile * n_units + sub,
                                        sums, n_units, row, out);
    const size_t n = HWY_MIN(kLanes, w.n_rows - first_row - row);
    for (size_t t = 0; t < kTokens; ++t) {
      hn::StoreN(out[t], df, y + (tile + sub + t) * y_stride + first_row + row, n);
    }
  }
}

// A whole tile of kStride tokens, in as few passes as the registers allow: 32 hold 8 tokens, 16 hold 4; the old targets take one
// token at a time, for the sake of build time.
template <PanelKind kKind, class DotT, size_t kStride>
HWY_INLINE void WholeTile(const PanelMatrix& w, const Q8View& x, size_t panel, size_t tile, float* y, size_t y_stride) {
  constexpr size_t kMost = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 1;
  constexpr size_t kTokens = HWY_MIN(kMost, kStride);
  for (size_t sub = 0; sub < kStride; sub += kTokens) {
    Tokens<kKind, DotT, kTokens, kStride>(w, x, panel, tile, sub, y, y_stride);
  }
}

// The entry point of kind kKind: all tokens x panels [panel_begin, panel_end).
template <PanelKind kKind, class DotT>
void PanelMatMul(const PanelMatrix& w, const Q8View& x, size_t panel_begin, size_t panel_end, float* y, size_t y_stride) {
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    size_t tile = 0;
    while (tile < x.n_tokens) {
      const size_t size = TileSize(tile, x.n_tokens);
      if (size == 8) {
        WholeTile<kKind, DotT, 8>(w, x, panel, tile, y, y_stride);
      } else if (size == 4) {
        WholeTile<kKind, DotT, 4>(w, x, panel, tile, y, y_stride);
      } else {
        WholeTile<kKind, DotT, 1>(w, x, panel, tile, y, y_stride);
      }
      tile += size;
    }
  }
}

// The kernel of the format with this type id among the formats of `Tuple`, or nullptr.
template <class Tuple>
PanelMatMulFn FindPanelMatMul(uint32_t type_id, [[maybe_unused]] bool vnni) {
  PanelMatMulFn found = nullptr;
  ForEachFormat<Tuple>([&]<class F>() {
    if (F::kInfo.type_id != type_id) return;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
    found = vnni ? &PanelMatMul<KindOf<F>(), DotVnni> : &PanelMatMul<KindOf<F>(), DotGeneric>;
#else
    found = &PanelMatMul<KindOf<F>(), DotGeneric>;
#endif
  });
  return found;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_MATMUL_INL_H_
