// Q8_0: int8 weights, f16 scale per 32. Source: ggml (legacy block formats).
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Q8_0 : FormatBase {
  static constexpr FormatInfo kInfo{"Q8_0", 8, 32, 34, 0};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 128;

  struct Block {
    uint8_t d[2], qs[32];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) { return static_cast<int8_t>(b.qs[i]) + kZero; }
};

}  // namespace lutra
