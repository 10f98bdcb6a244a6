// IQ2_KS: 2-bit indexes into one of two 4-entry tables, a 5-bit scale per 32, f16 scale of the
// row. 2.1875 bits a weight. extra: table bits (low byte), fifth bits of the scales (high byte).
// Source: ik_llama.cpp PR 85 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2Ks : RowScaleF16 {
  static constexpr FormatInfo kInfo{"IQ2_KS", 145, 256, 70, 2};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 2;
  static constexpr auto kTable = iqk::kTable2;
  static constexpr int kShift = iqk::kShift2;

  struct Block {
    uint8_t extra[2], scales[4], qs[64];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales[g / 2], g % 2) + 16 * Bit(b.extra[1], g) - 16;
  }
  static bool Shifted(const Block& b, size_t g) { return Bit(b.extra[0], g) != 0; }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4);
  }
};

}  // namespace lutra
