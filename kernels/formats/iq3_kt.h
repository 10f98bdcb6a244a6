// IQ3_KT: a 16-bit trellis index per eight weights that gives magnitudes, a sign bit a weight, a
// 4-bit scale per 32, f32 scale of the row. 3.125 bits a weight. The reference's dot products
// multiply the row scale by 1.01, its row dequantizer does not; nor do we. Source: ik_llama.cpp
// PR 529 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/trellis.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq3Kt : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ3_KT", 154, 256, 100, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr int kZero = 128;

  struct Block {
    uint8_t scales[4], index[64], qh[32];  // index: 32 x u16; qh: signs of eight weights 32 apart
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) { return Nibble(b.scales[g % 4], g / 4); }
  static int Index(const Block& b, size_t i) {
    const int value = trellis::Value(LoadLe<uint16_t>(b.index + 2 * (i / 8)), i % 8);
    const int magnitude = value < 0 ? -value : value;
    return (Bit(b.qh[i % 32], i / 32) ? -magnitude : magnitude) + kZero;
  }
};

}  // namespace lutra
