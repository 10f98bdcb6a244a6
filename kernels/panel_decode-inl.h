// Reading packed panels (kernels/panel.h), per target: indexes out of their bit planes, through the table in registers to unsigned
// lanes; scales, biases, super-scales; and 4-way dot products.
//
// Instructions per 64 weights (one chunk: 16 rows x 4 weights) on AVX-512 with VBMI: 4 bits 0.5 load, 0.5 shift; 2 bits 0.25 load, 0.75
// shift; 3, 5, 6 bits: + 1 shift, 1 vpternlog, a quarter or half load; table: 1 vpermb. Without VBMI: 1 and, or 2; 1 pshufb (5 and 6 bits
// 2 or 4 and 1 or 3 blends).
#if defined(LUTRA_PANEL_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_PANEL_DECODE_INL_H_
#undef LUTRA_PANEL_DECODE_INL_H_
#else
#define LUTRA_PANEL_DECODE_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/dot4-inl.h"
#include "kernels/fixed_order-inl.h"
#include "kernels/panel.h"
#include "kernels/targets.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

using DU8 = hn::Repartition<uint8_t, DI>;
using DI8 = hn::Repartition<int8_t, DI>;
using DU16 = hn::Repartition<uint16_t, DI>;
using DI16 = hn::Repartition<int16_t, DI>;
using VU8 = hn::Vec<DU8>;
using VI8 = hn::Vec<DI8>;

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
struct DotVnni {
  static constexpr bool kOneInstruction = true;
  static constexpr bool kSigned = false;
  static HWY_INLINE VI Dot(VI acc, VU8 u, VI8 a) { return Vpdpbusd(acc, u, a); }
};
#endif

#if HWY_ARCH_ARM_A64
// acc[row] += sum of 4 i8 x i8 products, exactly: sdot (Armv8.2 dotprod, optional in the architecture: chosen at run time). Lanes are signed
// there, without their offset.
struct DotSigned {
  static constexpr bool kOneInstruction = true;
  static constexpr bool kSigned = true;
  static HWY_INLINE VI Dot(VI acc, VU8 u, VI8 a) {
    asm(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.16b"
        : "+w"(acc.raw)
        : "w"(u.raw), "w"(a.raw));
    return acc;
  }
};
#endif

// No such instruction: kernels use 2-way products and never call Dot.
struct DotNone {
  static constexpr bool kOneInstruction = false;
  static constexpr bool kSigned = false;
  static HWY_INLINE VI Dot(VI acc, VU8, VI8) { return acc; }
};

// Moves bit `kFrom` of every byte to bit `kTo`; the bits beside it are whatever was beside it, or its neighbour's.
template <int kFrom, int kTo>
HWY_INLINE VU8 MoveBits(VU8 v) {
  const DU16 d16;
  auto w = hn::BitCast(d16, v);
  if constexpr (kFrom > kTo) w = hn::ShiftRight<kFrom - kTo>(w);
  if constexpr (kFrom < kTo) w = hn::ShiftLeft<kTo - kFrom>(w);
  return hn::BitCast(DU8(), w);
}
// The `kMask` bits from `kFrom` of every byte, moved to `kTo`; or, with them, those of `others`.
template <int kFrom, int kTo, int kMask>
HWY_INLINE VU8 Field(VU8 v) {
  return hn::And(MoveBits<kFrom, kTo>(v), hn::Set(DU8(), static_cast<uint8_t>(kMask << kTo)));
}
template <int kFrom, int kTo, int kMask>
HWY_INLINE VU8 OrField(VU8 others, VU8 v) {
  return hn::OrAnd(others, MoveBits<kFrom, kTo>(v),
                   hn::Set(DU8(), static_cast<uint8_t>(kMask << kTo)));
}

// The lookup table in registers.
template <PanelKind kKind>
struct Table {
  static constexpr size_t kRegisters = kKind.bits == 6 ? 4 : kKind.bits == 5 ? 2 : 1;
  VU8 part[kRegisters];  // 16 entries each, in every 128-bit lane
#if HWY_TARGET <= HWY_AVX3_DL
  VU8 all;
#endif
  // `minus` is taken from every entry, modulo 256: the offset, for signed lanes.
  HWY_INLINE explicit Table(const uint8_t* table, int minus = 0) {
    const DU8 d8;
    const auto m = hn::Set(d8, static_cast<uint8_t>(minus));
    for (size_t i = 0; i < kRegisters; ++i)
      part[i] = hn::Sub(hn::LoadDup128(d8, table + 16 * i), m);
#if HWY_TARGET <= HWY_AVX3_DL
    all = hn::Sub(hn::LoadU(d8, table), m);
#endif
  }
};

// Unsigned lanes of quad kQuad (4 weights x the part's rows) of a step, without the second table's shift.
template <PanelKind kKind, int kQuad>
HWY_INLINE VU8 Quad(const uint8_t* HWY_RESTRICT step, const Table<kKind>& table) {
  const DU8 d8;
  constexpr int kLow = kKind.bits == 3 ? 2 : kKind.bits == 5 || kKind.bits == 6 ? 4 : kKind.bits;
  constexpr int kLowMask = (1 << kLow) - 1;
  constexpr int kPerChunk = 8 / kLow;
  constexpr int kLowBit = kLow * (kQuad % kPerChunk);
  // Where the quad's bits lie in the high plane, if there is one.
  constexpr bool kHasHigh = kKind.bits == 3 || kKind.bits == 5 || kKind.bits == 6;
  constexpr int kHighBit = kKind.bits == 6 ? 2 * (kQuad % 4) : kQuad;
  constexpr int kHighMask = kKind.bits == 6 ? 3 : 1;
  const VU8 low = hn::LoadU(d8, step + 64 * (kQuad / kPerChunk));
  VU8 high = low;
  if constexpr (kHasHigh)
    high = hn::LoadU(d8, step + 64 * kLow + (kKind.bits == 6 ? 64 * (kQuad / 4) : 0));
#if HWY_TARGET <= HWY_AVX3_DL
  // vpermb looks at 6 bits, and the table repeats itself: whatever is in those beyond the index does not matter.
  if constexpr (kKind.table) {
    VU8 index = MoveBits<kLowBit, 0>(low);
    if constexpr (kHasHigh) {
      index = hn::BitwiseIfThenElse(hn::Set(d8, static_cast<uint8_t>(kLowMask)), index,
                                    MoveBits<kHighBit, kLow>(high));
    }
    return hn::TableLookupLanes(table.all, hn::Indices512<uint8_t>{index.raw});
  }
#endif
  if constexpr (kLow == 8) return low;
  VU8 u = Field<kLowBit, 0, kLowMask>(low);
  if constexpr (!kKind.table || kKind.bits == 3) {
    if constexpr (kHasHigh) u = OrField<kHighBit, kLow, kHighMask>(u, high);
    if constexpr (kKind.table) u = hn::TableLookupBytes(table.part[0], u);
  } else if constexpr (!kHasHigh) {
    u = hn::TableLookupBytes(table.part[0], u);
  } else {
    high = Field<kHighBit, 4, kHighMask>(high);
    const auto bit4 = hn::TestBit(high, hn::Set(d8, uint8_t{16}));
    if constexpr (kKind.bits == 5) {
      u = hn::IfThenElse(bit4, hn::TableLookupBytes(table.part[1], u),
                         hn::TableLookupBytes(table.part[0], u));
    } else {
      const auto bit5 = hn::TestBit(high, hn::Set(d8, uint8_t{32}));
      const auto below = hn::IfThenElse(bit4, hn::TableLookupBytes(table.part[1], u),
                                        hn::TableLookupBytes(table.part[0], u));
      const auto above = hn::IfThenElse(bit4, hn::TableLookupBytes(table.part[3], u),
                                        hn::TableLookupBytes(table.part[2], u));
      u = hn::IfThenElse(bit5, above, below);
    }
  }
  return u;
}

template <SuperKind kSuper>
HWY_INLINE VF LoadSupers(const uint8_t* p, size_t row) {
  [[maybe_unused]] const DF df;
  if constexpr (kSuper == SuperKind::kF16) {
    return LoadF16(reinterpret_cast<const uint16_t*>(p) + row);
  } else if constexpr (kSuper == SuperKind::kBf16) {
    const hn::Rebind<uint16_t, DF> du16;
    const hn::Rebind<hwy::bfloat16_t, DF> d16;
    return hn::PromoteTo(
        df, hn::BitCast(d16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p) + row)));
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

// Bit `row` of every group's shift word: the rows that use the second table.
template <PanelKind kKind>
HWY_INLINE hn::Mask<DI> ShiftMask(const uint8_t* p, size_t group, size_t row) {
  const DI di;
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  (void)row;
  return hn::LoadMaskBits(di, p + 2 * group);
#else
  uint16_t bits;
  std::memcpy(&bits, p + 2 * group, 2);
  const auto row_bit = hn::Shl(hn::Set(di, 1), hn::Iota(di, static_cast<int32_t>(row)));
  return hn::TestBit(hn::Set(di, bits), row_bit);
#endif
}

// kShift in the 4 bytes of every row that uses the second table, else 0.
template <PanelKind kKind>
HWY_INLINE VU8 ShiftLanes(const uint8_t* p, size_t group, size_t row) {
  if constexpr (kKind.shift != 0) {
    const DI di;
    return hn::BitCast(DU8(), hn::IfThenElseZero(ShiftMask<kKind>(p, group, row),
                                                 hn::Set(di, 0x01010101 * kKind.shift)));
  } else {
    return hn::Zero(DU8());
  }
}

// g++ adds the products of neighbouring groups to each other first, which takes twice the registers: it must not see that v is a sum.
HWY_INLINE void Pin(VI& v) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  asm("" : "+v"(v.raw));
#elif HWY_ARCH_X86
  asm("" : "+x"(v.raw));
#elif HWY_ARCH_ARM
  asm("" : "+w"(v.raw));
#endif
}

// Two int32 that fit int16, as the pair (first, second) of every int32 lane.
HWY_INLINE VI Pair(VI first, VI second) {
  const DI di;
  return hn::Or(hn::ShiftLeft<16>(second), hn::And(first, hn::Set(di, 0xFFFF)));
}

// The biases of groups 2 * pair and 2 * pair + 1; of the only group of a unit, twice.
template <PanelKind kKind>
HWY_INLINE VI BiasPair(const uint8_t* biases, size_t pair, size_t row) {
  const DI di;
  if constexpr (kKind.scale_bits == 0) {
    return hn::Set(di, 0x00010001);
  } else {
    constexpr size_t kStep = kKind.groups() == 1 ? 0 : 1;
    return Pair(LoadScales<kKind, false>(biases, 2 * kStep * pair, row),
                LoadScales<kKind, false>(biases, 2 * kStep * pair + kStep, row));
  }
}

// Where the fields of a unit are.
template <PanelKind kKind>
struct UnitFields {
  const uint8_t *supers, *bias_supers, *scales, *biases, *shifts, *steps;
  HWY_INLINE explicit UnitFields(const uint8_t* unit)
      : supers(unit),
        bias_supers(supers + kKind.super_bytes()),
        scales(bias_supers + kKind.bias_super_bytes()),
        biases(scales + kKind.scale_bytes()),
        shifts(biases + kKind.bias_bytes()),
        steps(unit + kKind.header_bytes()) {}
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_DECODE_INL_H_
