// Q4_1: 4 unsigned bits a weight, f16 scale and f16 minimum (added) per 32. Source: ggml (legacy
// block formats).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q4_1 : FormatBase {
  static constexpr FormatInfo kInfo{"Q4_1", 3, 32, 20, 0};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr int kScaleBits = 0;
  static constexpr bool kHasBias = true;

  struct Block {
    uint8_t d[2], m[2], qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) { return Nibble(b.qs[i % 16], i / 16); }
  static float BiasSuper(const RowHeader&, const Block& b) { return LoadF16(b.m); }
  static int Bias(const Block&, size_t) { return 1; }
};

}  // namespace lutra
