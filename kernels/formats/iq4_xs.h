// IQ4_XS: 4-bit indexes into the non-linear table, a 6-bit scale per 32, f16 super-scale. 4.25
// bits a weight. Source: llama.cpp PR 5747 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq4Xs : FormatBase {
  static constexpr FormatInfo kInfo{"IQ4_XS", 23, 256, 136, 0};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr auto kTable = iqk::kTable4;

  struct Block {
    uint8_t d[2], scales_h[2], scales_l[4], qs[128];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales_l[g / 2], g % 2) + 16 * TwoBits(b.scales_h[g / 4], g % 4) - 32;
  }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[16 * (i / 32) + i % 16], i % 32 / 16);
  }
};

}  // namespace lutra
