// TQ2_0: ternary weights in 2 bits each, f16 scale per 256. 2.0625 bits a weight. The fourth
// code reads as 2. Source: llama.cpp PR 8151 (compilade).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Tq2_0 : FormatBase {
  static constexpr FormatInfo kInfo{"TQ2_0", 35, 256, 66, 0};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 2;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 1;

  struct Block {
    uint8_t qs[64], d[2];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4);
  }
};

}  // namespace lutra
