// IQ3_S: four weights are a point of a 512-entry codebook (levels 1, 3, .., 15) with four free
// signs, a 4-bit scale per 32, f16 super-scale. 3.4375 bits a weight. Source: llama.cpp PR 5676
// (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq3S : FormatBase {
  static constexpr FormatInfo kInfo{"IQ3_S", 21, 256, 110, 0};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr std::array<int8_t, 16> kTable = {1,  3,  5,  7,  9,  11,  13,  15,
                                                    -1, -3, -5, -7, -9, -11, -13, -15};

  struct Block {
    uint8_t d[2], qs[64], qh[8], signs[32], scales[4];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return 2 * Nibble(b.scales[g / 2], g % 2) + 1; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 4;
    const int point = b.qs[k] + 256 * Bit(b.qh[k / 8], k % 8);
    return ThreeBits(grids::kIq3S[point], i % 4) + 8 * Bit(b.signs[i / 8], i % 8);
  }
};

}  // namespace lutra
