// IQ2_XS: eight weights are a point of a 512-entry codebook (levels 8, 25, 43) with signs, a
// 4-bit scale per 16, f16 super-scale. 2.3125 bits a weight. A word is a 9-bit codebook index
// and 7 signs (the eighth makes their number even). The factor of a point is d / 8 * (2 s + 1).
// Source: llama.cpp PR 4856 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2Xs : FormatBase {
  static constexpr FormatInfo kInfo{"IQ2_XS", 17, 256, 74, 0};
  static constexpr SuperKind kSuper = SuperKind::kF32;  // d / 8 may need more exponent than f16 has
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 3;
  static constexpr auto kTable = grids::kSignedLevels2;

  struct Block {
    uint8_t d[2], words[64], scales[8];  // words: 32 x u16
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d) * 0.125f; }
  static int Scale(const Block& b, size_t g) { return 2 * Nibble(b.scales[g / 2], g % 2) + 1; }
  static int Index(const Block& b, size_t i) {
    const uint32_t word = LoadLe<uint16_t>(b.words + 2 * (i / 8));
    return TwoBits(grids::kIq2Xs[word & 511], i % 8) + 4 * Bit(grids::EvenSigns(word >> 9), i % 8);
  }
};

}  // namespace lutra
