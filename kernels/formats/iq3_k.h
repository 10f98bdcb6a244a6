// IQ3_K: 3-bit indexes into one of two 8-entry tables, an odd 4-bit scale with its sign per 16,
// f16 super-scale. 3.4375 bits a weight. No scale is 0. Source: ik_llama.cpp discussion 8 (Iwan
// Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq3K : FormatBase {
  static constexpr FormatInfo kInfo{"IQ3_K", 138, 256, 110, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 3;
  static constexpr auto kTable = iqk::kTable3;
  static constexpr int kShift = iqk::kShift3;

  struct Block {
    uint8_t d[2], extra[2], scales_h[2], scales_l[8], qs[64], qh[32];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) {
    const int magnitude = 2 * Nibble(b.scales_l[g / 2], g % 2) + 1;
    return Bit(b.scales_h[g / 8], g % 8) ? -magnitude : magnitude;
  }
  static bool Shifted(const Block& b, size_t g) { return Bit(LoadLe<uint16_t>(b.extra), g) != 0; }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4) + 4 * Bit(b.qh[i % 32], i / 32);
  }
};

}  // namespace lutra
