// IQ6_K: 6-bit indexes into one of two 64-entry tables, an int8 scale per 16, f16 super-scale.
// 6.625 bits a weight. The world has two definitions: we take the integer table, for which its
// quantizer optimizes and which every dot product uses; the row dequantizer of the reference
// evaluates the cubic behind that table without rounding (never further than 0.488 from the
// integer). Source: ik_llama.cpp PR 14 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq6K : FormatBase {
  static constexpr FormatInfo kInfo{"IQ6_K", 141, 256, 212, 0};
  static constexpr size_t kGroup = 16;
  static constexpr int kBits = 6;
  static constexpr auto kTable = iqk::kTable6;
  static constexpr int kShift = iqk::kShift6;

  struct Block {
    uint8_t d[2], extra[2], scales[16], qs[128], qh[64];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block& b, size_t g) { return static_cast<int8_t>(b.scales[g]); }
  static bool Shifted(const Block& b, size_t g) { return Bit(LoadLe<uint16_t>(b.extra), g) != 0; }
  static int Index(const Block& b, size_t i) {
    const size_t k = i / 32 % 4, l = i % 32;
    return Nibble(b.qs[32 * (i / 64) + l], k % 2) + 16 * TwoBits(b.qh[32 * (i / 128) + l], k);
  }
};

}  // namespace lutra
