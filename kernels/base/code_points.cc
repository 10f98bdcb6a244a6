#include "kernels/base/code_points.h"

#include <algorithm>

namespace lutra {

std::vector<CodePointRange> OtherCodePoints(std::vector<CodePointRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<CodePointRange> others;
  uint32_t next = 0;
  for (const auto& [from, to] : ranges) {
    if (from > next) others.emplace_back(next, from - 1);
    next = std::max(next, to + 1);
  }
  if (next <= kMaxCodePoint) others.emplace_back(next, kMaxCodePoint);
  return others;
}

}  // namespace lutra
