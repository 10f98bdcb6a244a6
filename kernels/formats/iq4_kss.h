// IQ4_KSS: 4-bit indexes into one of two 16-entry tables, f32 scale of the row, 4.0 bits a
// weight in all: the byte with scale and table bit of a group of 32 is spread over the lowest
// bits of its eight 16-bit words. The other 15 bits w of a word stand for w ^ (w >> 1): 16 bits
// of even parity, which are four indexes. Source: ik_llama.cpp PR 89 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq4Kss : RowScaleF32 {
  static constexpr FormatInfo kInfo{"IQ4_KSS", 146, 256, 128, 4};
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr auto kTable = iqk::kTable4;
  static constexpr int kShift = iqk::kShift4;

  struct Block {
    uint8_t words[128];  // 64 x u16, eight per group
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static int Scale(const Block& b, size_t g) { return (ScaleByte(b, g) & 254) - 127; }
  static bool Shifted(const Block& b, size_t g) { return (b.words[16 * g] & 1) != 0; }
  static int Index(const Block& b, size_t i) {
    const size_t m = i % 16;  // byte of the group, after decoding
    const uint32_t w = LoadLe<uint16_t>(b.words + 16 * (i / 32) + m / 2 * 2) & 0xFFFEu;
    return Nibble(w ^ (w >> 1), 2 * (m % 2) + i % 32 / 16);
  }

 private:
  static int ScaleByte(const Block& b, size_t g) {
    int s = 0;
    for (size_t k = 0; k < 8; ++k) s |= Bit(b.words[16 * g + 2 * k], 0) << k;
    return s;
  }
};

}  // namespace lutra
