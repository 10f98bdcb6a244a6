// The generator of the trellis formats: a start state of 13 to 17 bits stands for a group of
// values, so that neighbouring groups need no shared state. State k is the start state times
// kMultiplier^(k + 1), modulo 2^32 (a jump, not a loop); its value is the sum of the low six bits
// of its four bytes, centred: roughly Gaussian, within [-126, 126]. Source: ik_llama.cpp PR 529
// (Iwan Kawrakow), after QTIP (Tseng and others, 2024, arXiv:2406.11235). Files from before PR 529
// used another generator under the same type ids; nothing in them tells.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lutra::trellis {

inline constexpr uint32_t kMultiplier = 0xCBAC1FED;
inline constexpr uint32_t kFirstState = 4096;  // what is added to a stored index

inline constexpr std::array<uint32_t, 8> kPowers = [] {
  std::array<uint32_t, 8> p{};
  uint32_t x = 1;
  for (uint32_t& power : p) power = x *= kMultiplier;
  return p;
}();

// Value k (0..7) of the group with this stored index (and flags).
constexpr int Value(uint32_t index, size_t k) {
  const uint32_t x = (index + kFirstState) * kPowers[k] & 0x3F3F3F3F;
  return static_cast<int>(x * 0x01010101 >> 24) -
         126;  // the top byte of the product is the sum of all four: at most 252
}

}  // namespace lutra::trellis
