// IQ4_K: 4-bit indexes into one of two 16-entry tables, a 6-bit scale per 16 weights, f16
// super-scale. 4.5 bits a weight. Source: ik_llama.cpp discussion 8 (Iwan Kawrakow).
// d, extra (table bit per 16), scales_h, scales_l, qs.
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq4K : FormatBase {
  static constexpr FormatInfo kInfo{"IQ4_K", 139, 256, 144, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 4;
  static constexpr auto kTable = iqk::kTable4;
  static constexpr int kShift = iqk::kShift4;

  struct Block {
    uint8_t d[2], extra[2], scales_h[4], scales_l[8], qs[128];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales_l[g / 2], g % 2) + 16 * TwoBits(b.scales_h[g / 4], g % 4) - 32;
  }
  static bool Shifted(const Block& b, size_t g) { return Bit(LoadLe<uint16_t>(b.extra), g) != 0; }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[16 * (i / 32) + i % 16], i % 32 / 16);
  }
};

}  // namespace lutra
