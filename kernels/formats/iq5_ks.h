// IQ5_KS: 5-bit indexes into one of two 32-entry tables, a byte per 32 (odd scale and table
// bit), f32 scale of the row. 5.25 bits a weight. No scale is 0. Source: ik_llama.cpp PR 422
// (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq5Ks : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ5_KS", 152, 256, 168, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 5;
  static constexpr auto kTable = iqk::kTable5;
  static constexpr int kShift = iqk::kShift5;

  struct Block {
    uint8_t scales[8], qs[128], qh[32];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) { return (b.scales[g] & 254) - 127; }
  static bool Shifted(const Block& b, size_t g) { return (b.scales[g] & 1) != 0; }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[32 * (i / 64) + i % 32], i / 32 % 2) + 16 * Bit(b.qh[i % 32], i / 32);
  }
};

}  // namespace lutra
