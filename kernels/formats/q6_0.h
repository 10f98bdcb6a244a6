// Q6_0: 6 bits a weight around 32, f16 scale per 32. A byte of qh holds two high bits of four
// weights. Source: ik_llama.cpp (Iwan Kawrakow).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q6_0 : FormatBase {
  static constexpr FormatInfo kInfo{"Q6_0", 133, 32, 26, 0};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 6;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 32;

  struct Block {
    uint8_t d[2], qh[8], qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i % 16;
    return Nibble(b.qs[k], i / 16) + 16 * TwoBits(b.qh[k % 8], 2 * (k / 8) + i / 16);
  }
};

}  // namespace lutra
