// IQ2_BN: ternary weights of BitNet models in 2 bits each, f32 scale of the row. 2.0 bits a
// weight. The fourth code reads as 2. Source: ik_llama.cpp (Iwan Kawrakow), the products; its
// row dequantizer forgets the row scale.
#pragma once

#include "kernels/quant_format.h"

namespace lutra {

struct Iq2Bn : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ2_BN", 135, 64, 16, 4};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 2;
  static constexpr int kScaleBits = 0;
  static constexpr int kZero = 1;

  struct Block {
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) { return TwoBits(b.qs[i % 16], i / 16); }
};

}  // namespace lutra
