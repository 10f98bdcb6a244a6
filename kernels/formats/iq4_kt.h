// IQ4_KT: a 15-bit trellis index per four weights, a 7-bit scale and a bit that chooses the half
// of the states per 32, f32 scale of the row. 4.0 bits a weight. Source: ik_llama.cpp PR 529
// (Iwan Kawrakow).
#pragma once

#include "kernels/formats/trellis.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq4Kt : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ4_KT", 155, 256, 128, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr int kZero = 128;

  struct Block {
    uint8_t words[32], ql[64],
        qh[32];  // words: 8 x u32: flag, scale, the top bits of eight indexes
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) { return (b.words[4 * g] >> 1) - 64; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 4;
    const uint32_t word = LoadLe<uint32_t>(b.words + 4 * (i / 32));
    const int index = b.ql[k] + 256 * Nibble(b.qh[k % 32], k / 32) +
                      4096 * ThreeBits(word >> 8, k % 8) + 32768 * Bit(word, 0);
    return trellis::Value(static_cast<uint32_t>(index), i % 4) + kZero;
  }
};

}  // namespace lutra
