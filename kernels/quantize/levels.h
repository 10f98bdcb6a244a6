// The levels of a table format in ascending order, and the boundaries between them laid out for a
// binary search. For encoders.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/quant_format.h"

namespace lutra {

// Of the values `table[0, n)`: ascending, without repetitions, filled up to a power of two with
// unreachable copies of the largest.
template <size_t kEntries>
struct LevelTables {
  static constexpr size_t kMax = kEntries < 16 ? 16 : kEntries;  // whole vectors can be loaded
  std::array<float, kMax> values{};
  std::array<int32_t, kMax> indexes{};
  size_t size = 0;   // a power of two
  size_t depth = 0;  // log2(size)
  bool sorted = true;
  // boundaries[k][p]: after k comparisons that went p (a number of k bits), compare with this.
  std::array<std::array<float, kMax>, 8> boundaries{};

  // Bins of equal width, so narrow that each has at most one boundary, and what is below and above it. u is in bin
  // clamp(u * bin_scale + bin_offset, 0, kBins - 1), rounded: whatever that rounds to, it is the same for a boundary and for what is
  // compared with it. kBins is 0 where 32 bins do not suffice.
  static constexpr size_t kMaxBins = 32;
  size_t n_bins = 0;
  float bin_scale = 0.0f, bin_offset = 0.0f;
  std::array<float, kMaxBins> bin_boundary{}, bin_below{}, bin_above{};

  constexpr explicit LevelTables(const std::array<int8_t, kEntries>& table) {
    std::array<size_t, kEntries> order{};
    size_t n = 0;
    for (size_t i = 0; i < kEntries; ++i) {
      bool seen = false;
      for (size_t j = 0; j < n; ++j) seen = seen || table[order[j]] == table[i];
      if (seen) continue;
      size_t at = n++;
      for (; at > 0 && table[order[at - 1]] > table[i]; --at) order[at] = order[at - 1];
      order[at] = i;
    }
    size = std::bit_ceil(n);
    depth = static_cast<size_t>(std::countr_zero(size));
    sorted = n == kEntries;
    for (size_t p = 0; p < size; ++p) {
      const size_t i = order[p < n ? p : n - 1];
      values[p] = static_cast<float>(table[i]);
      indexes[p] = static_cast<int32_t>(i);
      sorted = sorted && i == p;
    }
    for (size_t k = 0; k < depth; ++k) {
      for (size_t p = 0; p < size_t{1} << k; ++p) {
        const size_t above = (2 * p + 1) * (size >> (k + 1));  // the first level of the upper half
        boundaries[k][p] = above < n ? 0.5f * (values[above - 1] + values[above])
                                     : std::numeric_limits<float>::infinity();
      }
    }
    MakeBins(n);
  }

 private:
  // Rounds as the encoders do.
  constexpr size_t BinOf(float u, size_t bins) const {
    const float at = u * bin_scale + bin_offset;
    const float clamped = at < 0.0f                           ? 0.0f
                          : at > static_cast<float>(bins - 1) ? static_cast<float>(bins - 1)
                                                              : at;
    return static_cast<size_t>(clamped + 12582912.0f - 12582912.0f);
  }

  constexpr void MakeBins(size_t n) {
    if (n < 8) return;
    std::array<float, kMax> edges{};  // boundaries between neighbours
    float gap = std::numeric_limits<float>::infinity();
    for (size_t k = 0; k + 1 < n; ++k) {
      edges[k] = 0.5f * (values[k] + values[k + 1]);
      if (k > 0 && edges[k] - edges[k - 1] < gap) gap = edges[k] - edges[k - 1];
    }
    for (size_t bins = 16; bins <= kMaxBins; bins *= 2) {
      bin_scale = 0.999f / gap;
      bin_offset = -edges[0] * bin_scale;
      if ((edges[n - 2] - edges[0]) * bin_scale > static_cast<float>(bins) - 1.5f) continue;
      n_bins = bins;
      size_t next = 0;
      for (size_t b = 0; b < bins; ++b) {
        bin_below[b] = values[next];
        if (next + 1 < n && BinOf(edges[next], bins) == b) {
          bin_boundary[b] = edges[next];
          bin_above[b] = values[++next];
        } else {
          bin_boundary[b] = std::numeric_limits<float>::infinity();
          bin_above[b] = values[next];
        }
      }
      return;
    }
  }
};

// The levels of format F as static tables.
template <QuantFormat F>
struct SortedLevels {
  static constexpr LevelTables<F::kTable.size()> kTables{F::kTable};
  static constexpr size_t kSize = kTables.size;
  static constexpr size_t kDepth = kTables.depth;
  static constexpr bool kSorted = kTables.sorted;
  static constexpr auto kValues = kTables.values;
  static constexpr auto kIndexes = kTables.indexes;
  static constexpr auto kBoundaries = kTables.boundaries;
};
template <QuantFormat F>
requires(F::kTable.size() == 0) struct SortedLevels<F> {
};

}  // namespace lutra
