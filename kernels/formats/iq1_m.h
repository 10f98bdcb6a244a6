// IQ1_M: eight weights are a point of a 2048-entry ternary codebook plus or minus 1/8, an odd
// 3-bit scale per 16, f16 super-scale in the top nibbles of the four words that hold the scales.
// 1.75 bits a weight. The sign of the offset belongs to eight weights, half a group: it is part
// of the index. Source: llama.cpp PR 6302 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq1M : FormatBase {
  static constexpr FormatInfo kInfo{"IQ1_M", 29, 256, 56, 0};
  static constexpr SuperKind kSuper = SuperKind::kF32;  // d / 8 may need more exponent than f16 has
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 3;
  // In eighths: 8 t - 1, then 8 t + 1; the fourth and the last are never used.
  static constexpr std::array<int8_t, 8> kTable = {-9, -1, 7, 0, -7, 1, 9, 0};

  struct Block {
    uint8_t qs[32], qh[16], sc[8];  // sc: 4 x u16
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 4; ++k) bits |= static_cast<uint32_t>(b.sc[2 * k + 1] >> 4) << (4 * k);
    return F16ToF32(static_cast<uint16_t>(bits)) * 0.125f;
  }
  static int Scale(const Block& b, size_t g) {
    return 2 * ThreeBits(LoadLe<uint16_t>(b.sc + 2 * (g / 4)), g % 4) + 1;
  }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 8;
    const int h = Nibble(b.qh[k / 2], k % 2);
    const int point = b.qs[k] + 256 * (h & 7);
    return TwoBits(grids::kIq1[point], i % 8) + (h & 8 ? 0 : 4);
  }
};

}  // namespace lutra
