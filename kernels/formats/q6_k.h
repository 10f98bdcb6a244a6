// Q6_K: 6 bits a weight around 32, int8 scale per 16, f16 super-scale. 6.5625 bits a weight. The
// nibbles of a byte of ql belong to weights 64 apart. Source: llama.cpp PR 1684 (k-quants, Iwan
// Kawrakow).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q6K : FormatBase {
  static constexpr FormatInfo kInfo{"Q6_K", 14, 256, 210, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 6;
  static constexpr int kZero = 32;

  struct Block {
    uint8_t ql[128], qh[64], scales[16], d[2];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return static_cast<int8_t>(b.scales[g]); }
  static int Index(const Block& b, size_t i) {
    const size_t half = i / 128, k = i / 32 % 4, l = i % 32;
    return Nibble(b.ql[64 * half + 32 * (k % 2) + l], k / 2) + 16 * TwoBits(b.qh[32 * half + l], k);
  }
};

}  // namespace lutra
