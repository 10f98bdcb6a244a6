// IQ1_KT: a 13-bit trellis index per eight weights, a 4-bit scale per 32 looked up in the IQ4
// table, f32 scale of the row. 1.75 bits a weight. Source: ik_llama.cpp PR 616 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/formats/trellis.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq1Kt : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ1_KT", 158, 256, 56, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 8;
  static constexpr int kZero = 128;

  struct Block {
    uint8_t sh[8], ql[32], qh[16];  // sh: scale, and the top bits of four indexes
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) { return iqk::kTable4[b.sh[g] & 15]; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 8;
    const int index =
        b.ql[k] + 256 * Nibble(b.qh[k % 16], k / 16) + 4096 * Bit(b.sh[k / 4], 4 + k % 4);
    return trellis::Value(static_cast<uint32_t>(index), i % 8) + kZero;
  }
};

}  // namespace lutra
