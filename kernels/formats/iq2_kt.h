// IQ2_KT: a 16-bit trellis index per eight weights, a 4-bit scale per 32 looked up in the IQ4
// table, f32 scale of the row. 2.125 bits a weight. The reference's dot products multiply the
// row scale by 1.05, its row dequantizer does not; nor do we. Source: ik_llama.cpp PR 529 (Iwan
// Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/formats/trellis.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2Kt : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ2_KT", 153, 256, 68, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr int kZero = 128;

  struct Block {
    uint8_t scales[4], index[64];  // index: 32 x u16
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) {
    return iqk::kTable4[static_cast<size_t>(Nibble(b.scales[g % 4], g / 4))];
  }
  static int Index(const Block& b, size_t i) {
    return trellis::Value(LoadLe<uint16_t>(b.index + 2 * (i / 8)), i % 8) + kZero;
  }
};

}  // namespace lutra
