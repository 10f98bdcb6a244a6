// How Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into twelve bytes: the first
// four of each are the low six bits of bytes 0-3 and 4-7; the others have their low nibbles in
// bytes 8-11 and their high bits on top of bytes 0-7.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra::k_scales {

inline int Scale(const uint8_t (&s)[12], size_t g) {
  return g < 4 ? s[g] & 63 : (s[g + 4] & 15) + 16 * (s[g - 4] >> 6);
}
inline int Min(const uint8_t (&s)[12], size_t g) {
  return g < 4 ? s[g + 4] & 63 : (s[g + 4] >> 4) + 16 * (s[g] >> 6);
}

}  // namespace lutra::k_scales
