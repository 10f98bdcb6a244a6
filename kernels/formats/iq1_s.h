// IQ1_S: eight weights are a point of a 2048-entry ternary codebook; an odd 3-bit scale and an
// offset of plus or minus 1/8 per 32, f16 super-scale. 1.5625 bits a weight. In eighths a weight
// is 8 t - 1 or 8 t + 1: a table of three levels and its shifted form. Source: llama.cpp PR
// 5453, 5999 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/grids.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq1S : FormatBase {
  static constexpr FormatInfo kInfo{"IQ1_S", 19, 256, 50, 0};
  static constexpr SuperKind kSuper = SuperKind::kF32;  // d / 8 may need more exponent than f16 has
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 2;
  static constexpr std::array<int8_t, 4> kTable = {-9, -1, 7, 0};  // the last is never used
  static constexpr int kShift = 2;

  struct Block {
    uint8_t d[2], qs[32], qh[16];  // qh: 8 x u16: four 3-bit fields, scale, sign of the offset
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d) * 0.125f; }
  static int Scale(const Block& b, size_t g) { return 2 * (b.qh[2 * g + 1] >> 4 & 7) + 1; }
  static bool Shifted(const Block& b, size_t g) { return b.qh[2 * g + 1] < 128; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 8;
    const int point = b.qs[k] + 256 * ThreeBits(LoadLe<uint16_t>(b.qh + 2 * (k / 4)), k % 4);
    return TwoBits(grids::kIq1[point], i % 8);
  }
};

}  // namespace lutra
