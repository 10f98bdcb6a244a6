// IQ3_XXS: four weights are a point of a 256-entry codebook (levels 4, 12, .., 52, 62) with
// signs, a 4-bit scale per 32, f16 super-scale. 3.0625 bits a weight. The last 32 bytes: a u32
// per 32 weights, four 7-bit sign fields of eight weights each (the eighth sign makes their
// number even) and the scale. In ggml's terms the factor of a point is d * (0.5 + s) / 2; here
// it is d / 4 * (2 s + 1), the same number. Source: llama.cpp PR 5196 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq3Xxs : FormatBase {
  static constexpr FormatInfo kInfo{"IQ3_XXS", 18, 256, 98, 0};
  static constexpr SuperKind kSuper = SuperKind::kF32;  // d / 4 may need more exponent than f16 has
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr std::array<int8_t, 16> kTable = {4,  12,  20,  28,  36,  44,  52,  62,
                                                    -4, -12, -20, -28, -36, -44, -52, -62};

  struct Block {
    uint8_t d[2], qs[64], aux[32];  // aux: 8 x u32
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d) * 0.25f; }
  static int Scale(const Block& b, size_t g) { return 2 * (b.aux[4 * g + 3] >> 4) + 1; }
  static int Index(const Block& b, size_t i) {
    const uint32_t aux = LoadLe<uint32_t>(b.aux + 4 * (i / 32));
    const uint32_t signs = grids::EvenSigns(aux >> (7 * (i % 32 / 8)) & 127);
    return ThreeBits(grids::kIq3Xxs[b.qs[i / 4]], i % 4) + 8 * Bit(signs, i % 8);
  }
};

}  // namespace lutra
