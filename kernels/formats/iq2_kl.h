// IQ2_KL: one 5-bit index a pair of weights, a 6-bit scale per 32, f16 scale of the row. 2.6875
// bits a weight. The 32 pairs are those of the 8 x 8 pairs of IQ3_KS levels that serve real
// models best, so each weight has a 3-bit index of its own into that table. Source: ik_llama.cpp
// PR 602 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2Kl : RowScaleF16 {
  static constexpr FormatInfo kInfo{"IQ2_KL", 157, 256, 86, 2};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 3;
  static constexpr auto kTable = iqk::kTable3;

  struct Block {
    uint8_t scales_h[2], scales_l[4], qs[64], qh[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales_l[g % 4], g / 4) + 16 * TwoBits(b.scales_h[g / 4], g % 4) - 32;
  }
  static int Index(const Block& b, size_t i) {
    const size_t p = i % 32 / 2;
    const int pair = Nibble(b.qs[16 * (i / 64) + p], i / 32 % 2) + 16 * Bit(b.qh[p], i / 32);
    return iqk::kPairs[static_cast<size_t>(pair)][i % 2];
  }
};

}  // namespace lutra
