// Q5_0: 5 bits a weight around 16, f16 scale per 32. The fifth bit of weight i is bit i of qh.
// Source: ggml (legacy block formats).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q5_0 : FormatBase {
  static constexpr FormatInfo kInfo{"Q5_0", 6, 32, 22, 0};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 5;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 16;

  struct Block {
    uint8_t d[2], qh[4], qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[i % 16], i / 16) + 16 * Bit(b.qh[i / 8], i % 8);
  }
};

}  // namespace lutra
