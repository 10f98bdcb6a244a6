// IQ3_KS: 3-bit indexes into one of two 8-entry tables, a 5-bit scale per 32, f16 scale of the
// row. 3.1875 bits a weight. extra: fifth bits of the scales (low byte), table bits (high byte);
// that and the nibble order of scales are the other way round in IQ2_KS. Source: ik_llama.cpp PR
// 566 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq3Ks : RowScaleF16 {
  static constexpr FormatInfo kInfo{"IQ3_KS", 156, 256, 102, 2};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 3;
  static constexpr auto kTable = iqk::kTable3;
  static constexpr int kShift = iqk::kShift3;

  struct Block {
    uint8_t extra[2], scales[4], qs[64], qh[32];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales[g % 4], g / 4) + 16 * Bit(b.extra[0], g) - 16;
  }
  static bool Shifted(const Block& b, size_t g) { return Bit(b.extra[1], g) != 0; }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4) + 4 * Bit(b.qh[i % 32], i / 32);
  }
};

}  // namespace lutra
