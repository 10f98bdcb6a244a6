// IQ4_NL: 4-bit indexes into the 16-entry non-linear table, f16 scale per 32. Source: llama.cpp
// PR 5590 (Iwan Kawrakow).
#pragma once

#include "kernels/formats/iqk_tables.h"
#include "kernels/quant_format.h"

namespace lutra {

struct Iq4Nl : FormatBase {
  static constexpr FormatInfo kInfo{"IQ4_NL", 20, 32, 18, 0};
  static constexpr Activations kActivations = Activations::kQ8x32;
  static constexpr size_t kGroup = 32;
  static constexpr int kBits = 4;
  static constexpr int kScaleBits = 0;
  static constexpr auto kTable = iqk::kTable4;

  struct Block {
    uint8_t d[2], qs[16];
  };
  static_assert(sizeof(Block) == kInfo.block_bytes);

  static float Super(const RowHeader&, const Block& b) { return LoadF16(b.d); }
  static int Scale(const Block&, size_t) { return 1; }
  static int Index(const Block& b, size_t i) { return Nibble(b.qs[i % 16], i / 16); }
};

}  // namespace lutra
