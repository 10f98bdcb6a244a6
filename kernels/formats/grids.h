// The codebooks of the i-quants: points of the E8 (eight weights) and D4 (four weights) lattices,
// chosen by Iwan Kawrakow (llama.cpp PR 4773, 4856, 5196, 5453, 5676, 5721). Which points were kept
// follows no published rule, so they are data: the entries are those of ggml-common.h (MIT), in its
// order, each packed here as small level numbers, the first weight in the lowest bits. Any index of
// the width that a format stores is within its codebook.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace lutra::grids {

// Eight fields of two bits; levels 0, 1, 2 are 8, 25, 43.
extern const uint16_t kIq2Xxs[256];
extern const uint16_t kIq2Xs[512];
extern const uint16_t kIq2S[1024];
// Four fields of three bits; levels 0..7 are 4, 12, .., 52, 62 (IQ3_XXS) and 1, 3, .., 15 (IQ3_S).
extern const uint16_t kIq3Xxs[256];
extern const uint16_t kIq3S[512];
// Eight fields of two bits; levels 0, 1, 2 are -1, 0, 1. IQ1_S and IQ1_M.
extern const uint16_t kIq1[2048];

// The value table of the three 2-bit codebooks: index = level + 4 * (negative); 3 and 7 are never
// used.
inline constexpr std::array<int8_t, 8> kSignedLevels2 = {8, 25, 43, 0, -8, -25, -43, 0};

// Seven stored sign bits, and an eighth that makes the number of set bits even.
constexpr uint32_t EvenSigns(uint32_t seven) {
  return seven | (static_cast<uint32_t>(std::popcount(seven)) & 1) << 7;
}

}  // namespace lutra::grids
