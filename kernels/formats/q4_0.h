// Q4_0: 4 bits a weight around 8, f16 scale per 32. Nibble order: byte k holds weights k and 16
// + k. Source: ggml (legacy block formats).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q4_0 : FormatBase {
  static constexpr FormatInfo kInfo{"Q4_0", 2, 32, 18, 0};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 8;

  struct Block {
    uint8_t d[2], qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) { return Nibble(b.qs[i % 16], i / 16); }
};

}  // namespace lutra
