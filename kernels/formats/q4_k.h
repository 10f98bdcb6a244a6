// Q4_K: 4 bits a weight, 6-bit scale and 6-bit minimum per 32, f16 super-scales. 4.5 bits a
// weight. The nibbles of a byte belong to two neighbouring groups of 32. Source: llama.cpp PR
// 1684 (k-quants, Iwan Kawrakow).
#pragma once

#include "kernels/formats/k_scales.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Q4K : FormatBase {
  static constexpr FormatInfo kInfo{"Q4_K", 12, 256, 144, 0};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr bool kHasBias = true;

  struct Block {
    uint8_t d[2], dmin[2], scales[12], qs[128];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return k_scales::Scale(b.scales, g); }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[32 * (i / 64) + i % 32], i / 32 % 2);
  }
  static float BiasSuper(const RowHeader&, const Block& b) { return -LoadF16(b.dmin); }
  static int Bias(const Block& b, size_t g) { return k_scales::Min(b.scales, g); }
};

}  // namespace lutra
