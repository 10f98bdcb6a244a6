// IQ4_KS: 4-bit indexes into one of two 16-entry tables, a byte per 32 (odd scale and table
// bit), f32 scale of the row. 4.25 bits a weight. No scale is 0. Source: ik_llama.cpp PR 83
// (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq4Ks : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ4_KS", 144, 256, 136, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr auto kTable = iqk::kTable4;
  static constexpr int kShift = iqk::kShift4;

  struct Block {
    uint8_t scales[8], qs[128];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) { return (b.scales[g] & 254) - 127; }
  static bool Shifted(const Block& b, size_t g) { return (b.scales[g] & 1) != 0; }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[16 * (i / 32) + i % 16], i % 32 / 16);
  }
};

}  // namespace lutra
