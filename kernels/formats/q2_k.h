// Q2_K: 2 bits a weight, 4-bit scale and 4-bit minimum per 16, f16 super-scales. 2.625 bits a
// weight. A byte of qs holds four weights 32 apart. Source: llama.cpp PR 1684 (k-quants, Iwan
// Kawrakow).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q2K : FormatBase {
  static constexpr FormatInfo kInfo{"Q2_K", 10, 256, 84, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 2;
  static constexpr int kScaleBits = 4;
  static constexpr bool kHasBias = true;

  struct Block {
    uint8_t scales[16], qs[64], d[2], dmin[2];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return b.scales[g] & 15; }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4);
  }
  static float BiasSuper(const RowHeader&, const Block& b) { return -LoadF16(b.dmin); }
  static int Bias(const Block& b, size_t g) { return b.scales[g] >> 4; }
};

}  // namespace lutra
