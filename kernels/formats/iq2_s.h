// IQ2_S: eight weights are a point of a 1024-entry codebook (levels 8, 25, 43) with eight free
// signs, a 4-bit scale per 16, f16 super-scale. 2.5625 bits a weight. The factor of a point is d
// / 8 * (2 s + 1). Source: llama.cpp PR 5721 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2S : FormatBase {
  static constexpr FormatInfo kInfo{"IQ2_S", 22, 256, 82, 0};
  static constexpr SuperKind kSuper = SuperKind::kF32;  // d / 8 may need more exponent than f16 has
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 3;
  static constexpr auto kTable = grids::kSignedLevels2;

  struct Block {
    uint8_t d[2], qs[32], signs[32], qh[8], scales[8];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d) * 0.125f; }
  static int Scale(const Block& b, size_t g) { return 2 * Nibble(b.scales[g / 2], g % 2) + 1; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 8;
    const int point = b.qs[k] + 256 * TwoBits(b.qh[k / 4], k % 4);
    return TwoBits(grids::kIq2S[point], i % 8) + 4 * Bit(b.signs[k], i % 8);
  }
};

}  // namespace lutra
