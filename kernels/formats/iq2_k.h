// IQ2_K: 2-bit indexes into one of two 4-entry tables, a 4-bit scale per 16, f16 super-scale.
// 2.375 bits a weight. Source: ik_llama.cpp discussion 8 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq2K : FormatBase {
  static constexpr FormatInfo kInfo{"IQ2_K", 137, 256, 76, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 2;
  static constexpr int kScaleBits = 4;
  static constexpr int kScaleZero = 8;
  static constexpr auto kTable = iqk::kTable2;
  static constexpr int kShift = iqk::kShift2;

  struct Block {
    uint8_t d[2], extra[2], scales[8], qs[64];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return Nibble(b.scales[g / 2], g % 2) - 8; }
  static bool Shifted(const Block& b, size_t g) { return Bit(LoadLe<uint16_t>(b.extra), g) != 0; }
  static int Index(const Block& b, size_t i) {
    return TwoBits(b.qs[32 * (i / 128) + i % 32], i / 32 % 4);
  }
};

}  // namespace lutra
