// Q3_K: 3 bits a weight around 4, 6-bit scale per 16, f16 super-scale. 3.4375 bits a weight.
// hmask holds the third bits, one of its bits a group of 32. Source: llama.cpp PR 1684
// (k-quants, Iwan Kawrakow).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q3K : FormatBase {
  static constexpr FormatInfo kInfo{"Q3_K", 11, 256, 110, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 3;
  static constexpr int kZero = 4;

  struct Block {
    uint8_t hmask[32], qs[64], scales[12], d[2];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales[g % 8], g / 8) + 16 * TwoBits(b.scales[8 + g % 4], g / 4) - 32;
  }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4) + 4 * Bit(b.hmask[i % 32], i / 32);
  }
};

}  // namespace lutra
