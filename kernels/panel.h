// Packed panels: the one weight layout that every quantized kernel reads, whatever the file's format.
//
// A panel holds 16 rows. Per unit of K (256 weights, or 32 for formats with a float scale per 32) it stores
//   super       [16] f16 | bf16 | f32 (none if the scale is the row's: then [16] f32 once in front of the panel)
//   bias super  [16] f16, formats with a bias
//   scales      [groups][16] int8 | 4-bit, two groups a byte | nothing where Scale() is always 1
//   biases      [groups][16] uint8, or 4-bit likewise
//   shifts      [groups] uint16, one bit a row, formats with two tables
//   steps       one per 32 weights: the bit planes of the indexes, 64 * bits bytes
// A 64-byte *chunk* is 4 consecutive weights of each of the 16 rows (byte 4 * row + k), the shape that 4-way dot products
// want: lane `row` of the int32 accumulator sums that row, so no horizontal sums, and all targets read the same bytes (an
// 8-lane machine takes half of each chunk). In a step, quads 0..7 of 4 weights are laid out as
//   8 bits: 8 chunks.   4 bits: chunk c holds quad 2c in its low, 2c + 1 in its high nibbles.
//   2 bits: chunk c holds quads 4c .. 4c + 3 at bits 0, 2, 4, 6.   3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2 bits: the low plane, then
//   the high one; the 1-bit plane is one chunk, quad q at bit q.
// Indexes become unsigned lanes u = table[index] + offset (or the index itself), which is what u8 x i8 dot instructions take;
// `offset` is undone once a group through the activations' sums.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/quant_format.h"

namespace lutra {

inline constexpr size_t kPanelRows = 16;

// Everything a kernel must know about a format; formats with equal kinds share one kernel.
struct PanelKind {
  int bits;    // 2, 3, 4, 5, 6, 8
  int group;   // 16 or 32 weights a scale
  int offset;  // lane = u - offset; 0 or a power of two
  int shift;   // added to u in shifted groups, 0: no second table
  bool table;  // u by lookup, else u = index
  bool bias;
  int scale_bits;  // 0 (scale is 1), 4 or 8
  int scale_zero;  // 4-bit scales: scale = nibble - scale_zero
  int greatest;    // max(u), shift included
  int magnitude;   // max |u - offset|, shift included
  SuperKind super;
  int unit;  // 256 or 32

  constexpr bool operator==(const PanelKind&) const = default;
  constexpr size_t groups() const { return static_cast<size_t>(unit / group); }
  // Columns of half a pair, where two groups go together in one 2-way product; of a unit of one group, its halves.
  constexpr int pair_group() const { return groups() == 1 ? group / 2 : group; }
  constexpr size_t super_bytes() const {
    return super == SuperKind::kRow ? 0 : (super == SuperKind::kF32 ? 4 : 2) * kPanelRows;
  }
  constexpr size_t bias_super_bytes() const { return bias ? 2 * kPanelRows : 0; }
  constexpr size_t scale_bytes() const {
    return groups() * kPanelRows * static_cast<size_t>(scale_bits) / 8;
  }
  // Biases go with the scales' width; formats without scales have Bias() == 1 and store none.
  constexpr size_t bias_bytes() const { return bias ? scale_bytes() : 0; }
  constexpr size_t shift_bytes() const { return shift != 0 ? 2 * groups() : 0; }
  constexpr size_t header_bytes() const {
    return super_bytes() + bias_super_bytes() + scale_bytes() + bias_bytes() + shift_bytes();
  }
  constexpr size_t step_bytes() const { return 64 * static_cast<size_t>(bits); }
  constexpr size_t steps() const { return static_cast<size_t>(unit / 32); }
  constexpr size_t unit_bytes() const { return header_bytes() + steps() * step_bytes(); }
  constexpr size_t panel_header_bytes() const {
    return super == SuperKind::kRow ? 4 * kPanelRows : 0;
  }
  // Bytes of the panel of 16 rows of n_cols weights, a multiple of 64.
  constexpr size_t panel_bytes(size_t n_cols) const {
    const size_t raw = panel_header_bytes() + n_cols / static_cast<size_t>(unit) * unit_bytes();
    return (raw + 63) / 64 * 64;
  }
};

// How many int16 sums of two products of lanes up to `greatest` with activations can be added without overflow: 8, 4, 2, 1, or 0: not
// even one is safe from the saturation of pmaddubsw.
constexpr int SafePairSums(int greatest) {
  for (int n = 8; n > 0; n /= 2) {
    if (n * 2 * greatest * 127 <= 32767) return n;
  }
  return 0;
}

template <QuantFormat F>
constexpr int TableOffset() {
  int least = 0;
  for (const int8_t v : F::kTable) least = std::min<int>(least, v);
  int offset = 1;
  while (offset < -least) offset *= 2;
  return offset;
}

template <QuantFormat F>
constexpr PanelKind KindOf() {
  PanelKind k{};
  k.bits = F::kBits;
  k.group = static_cast<int>(F::kGroup);
  k.table = F::kTable.size() != 0;
  k.offset = k.table ? TableOffset<F>() : F::kZero;
  k.shift = F::kShift;
  k.bias = F::kHasBias;
  k.scale_bits = F::kScaleBits;
  k.scale_zero = F::kScaleZero;
  int least = 0;
  k.greatest = (1 << F::kBits) - 1;
  if (k.table) {
    k.greatest = 0;
    for (const int8_t v : F::kTable) {
      k.greatest = std::max(k.greatest, v + k.offset + std::max(0, k.shift));
      least = std::min(least, v + std::min(0, k.shift));
    }
  } else {
    least = -k.offset;
  }
  k.magnitude = std::max(k.greatest - k.offset, -least);
  k.super = F::kSuper;
  k.unit = F::kActivations == Activations::kQ8x256 ? 256 : 32;
  return k;
}

// table[index] + offset, repeated to fill 64 bytes (so that 16-byte loads of shorter tables work too).
template <QuantFormat F>
constexpr std::array<uint8_t, 64> LaneTable() {
  std::array<uint8_t, 64> t{};
  if constexpr (F::kTable.size() != 0) {
    for (size_t i = 0; i < 64; ++i) {
      t[i] = static_cast<uint8_t>(F::kTable[i % F::kTable.size()] + KindOf<F>().offset);
    }
  }
  return t;
}

}  // namespace lutra
