// IQ1_BN: ternary weights of BitNet models, 16 of them in 3 bytes and a digit of a byte that
// four groups share, f16 scale of the row. 1.625 bits a weight. The first weight of a byte is
// its least significant digit. Source: ik_llama.cpp (Iwan Kawrakow), the products; its row
// dequantizer forgets the row scale.
#pragma once

#include "kernels/formats/ternary.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq1Bn : RowScaleF16 {
  static constexpr FormatInfo kInfo{"IQ1_BN", 134, 64, 13, 2};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 2;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 1;

  struct Block {
    uint8_t ql[12], extra[1];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) {
    const size_t g = i / 16, k = i % 16;
    return k < 15 ? ternary::Digit(b.ql[3 * g + k / 5], 4 - k % 5)
                  : ternary::Digit(b.extra[0], 4 - g);
  }
};

}  // namespace lutra
