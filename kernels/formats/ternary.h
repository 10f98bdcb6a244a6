// Five ternary digits a byte, as a fixed-point fraction: multiplying by a power of three brings one
// of them to the top.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra::ternary {

inline constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};

// The digit (0..2) of x that has kPowers[n] in front: n = 0 is the most significant one.
constexpr int Digit(uint32_t x, size_t n) {
  return static_cast<int>((x * kPowers[n] & 255) * 3 >> 8);
}

}  // namespace lutra::ternary
