// IQ5_K: 5-bit indexes into one of two 32-entry tables, a 6-bit scale per 16, f16 super-scale.
// 5.5 bits a weight. Scales as IQ4_K, but the nibbles of a byte belong to two neighbouring
// groups of 32. Source: ik_llama.cpp discussion 8 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq5K : FormatBase {
  static constexpr FormatInfo kInfo{"IQ5_K", 140, 256, 176, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 5;
  static constexpr auto kTable = iqk::kTable5;
  static constexpr int kShift = iqk::kShift5;

  struct Block {
    uint8_t d[2], extra[2], scales_h[4], scales_l[8], qs[128], qh[32];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) {
    return Nibble(b.scales_l[g / 2], g % 2) + 16 * TwoBits(b.scales_h[g / 4], g % 4) - 32;
  }
  static bool Shifted(const Block& b, size_t g) { return Bit(LoadLe<uint16_t>(b.extra), g) != 0; }
  static int Index(const Block& b, size_t i) {
    return Nibble(b.qs[32 * (i / 64) + i % 32], i / 32 % 2) + 16 * Bit(b.qh[i % 32], i / 32);
  }
};

}  // namespace lutra
