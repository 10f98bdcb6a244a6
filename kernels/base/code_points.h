// Sets of Unicode code points as ranges.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace lutra {

inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

using CodePointRange = std::pair<uint32_t, uint32_t>;  // first and last

// The code points that are in none of the ranges (in any order, overlapping or not): ascending, disjoint.
std::vector<CodePointRange> OtherCodePoints(std::vector<CodePointRange> ranges);

}  // namespace lutra
