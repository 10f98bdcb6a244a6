// Q5_K: 5 bits a weight, 6-bit scale and 6-bit minimum per 32, f16 super-scales. 5.5 bits a
// weight. Nibbles as in Q4_K; a byte of qh holds the fifth bits of eight weights 32 apart.
// Source: llama.cpp PR 1684 (k-quants, Iwan Kawrakow).
#pragma once

#include "kernels/formats/k_scales.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Q5K : FormatBase {
  static constexpr FormatInfo kInfo{"Q5_K", 13, 256, 176, 0};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 5;
  static constexpr bool kHasBias = true;

  struct Block {
    uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return k_scales::Scale(b.scales, g); }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[32 * (i / 64) + i % 32], i / 32 % 2) + 16 * Bit(b.qh[i % 32], i / 32);
  }
  static float BiasSuper(const RowHeader&, const Block& b) { return -LoadF16(b.dmin); }
  static int Bias(const Block& b, size_t g) { return k_scales::Min(b.scales, g); }
};

}  // namespace lutra
