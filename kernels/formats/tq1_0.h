// TQ1_0: ternary weights, five in a byte, f16 scale per 256. 1.6875 bits a weight. The first
// weight of a byte is its most significant digit. Source: llama.cpp PR 8151 (compilade).
#pragma once

#include "kernels/formats/ternary.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Tq1_0 : FormatBase {
  static constexpr FormatInfo kInfo{"TQ1_0", 34, 256, 54, 0};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 2;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 1;

  struct Block {
    uint8_t qs[48], qh[4], d[2];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  // Three runs: five digits of 32 bytes, five of 16 bytes, four of 4 bytes.
  static int Index(const Block& b, size_t i) {
    if (i < 160) return ternary::Digit(b.qs[i % 32], i / 32);
    if (i < 240) return ternary::Digit(b.qs[32 + i % 16], (i - 160) / 16);
    return ternary::Digit(b.qh[i % 4], (i - 240) / 4);
  }
};

}  // namespace lutra
