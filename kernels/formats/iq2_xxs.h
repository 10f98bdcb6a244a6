// IQ2_XXS: eight weights are a point of a 256-entry codebook (levels 8, 25, 43) with signs, a
// 4-bit scale per 32, f16 super-scale. 2.0625 bits a weight. A record of 32 weights: four
// codebook indexes, four 7-bit sign fields (the eighth sign makes the number of minus signs
// even), the scale. In ggml's terms d * (0.5 + s) / 4 is the factor of a point; here it is d / 8
// * (2 s + 1), which is the same number. Source: llama.cpp PR 4773 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2Xxs : FormatBase {
  static constexpr FormatInfo kInfo{"IQ2_XXS", 16, 256, 66, 0};
  static constexpr SuperKind kSuper = SuperKind::kF32;  // d / 8 may need more exponent than f16 has
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 3;
  static constexpr auto kTable = grids::kSignedLevels2;

  struct Record {
    uint8_t index[4], aux[4];  // aux: u32, four sign fields and the scale
  };
  struct Block {
    uint8_t d[2];
    Record records[8];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d) * 0.125f; }
  static int Scale(const Block& b, size_t g) { return 2 * (b.records[g].aux[3] >> 4) + 1; }
  static int Index(const Block& b, size_t i) {
    const Record& r = b.records[i / 32];
    const size_t k = i % 32 / 8;
    const uint32_t signs = grids::EvenSigns(LoadLe<uint32_t>(r.aux) >> (7 * k) & 127);
    return TwoBits(grids::kIq2Xxs[r.index[k]], i % 8) + 4 * Bit(signs, i % 8);
  }
};

}  // namespace lutra
