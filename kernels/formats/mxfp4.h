// MXFP4: FP4 (E2M1) weights under one power-of-two scale (E8M0) per 32. 4.25 bits a weight. The
// table holds the E2M1 values doubled, so Super is half of the E8M0 value; byte 255, the NaN of
// the specification, reads as 2^127 (as in ggml: weights hold no NaN). Source: OCP Microscaling
// Formats (MX) v1.0, section 5.
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Mxfp4 : FormatBase {
  static constexpr FormatInfo kInfo{"MXFP4", 39, 32, 17, 0};
  static constexpr SuperKind kSuper = SuperKind::kBf16;
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr int kScaleBits = 0;
  static constexpr std::array<int8_t, 16> kTable = {0, 1,  2,  3,  4,  6,  8,  12,
                                                    0, -1, -2, -3, -4, -6, -8, -12};

  struct Block {
    uint8_t e[1], qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  // 2^(e - 128); the two smallest are subnormal floats.
  static float Super(const RowHeader&, const Block& b) {
    const uint32_t e = b.e[0];
    return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) { return Nibble(b.qs[i % 16], i / 16); }
};

}  // namespace lutra
