// Names of the parts of a split model: PREFIX-00001-of-0000N.gguf, numbered from 1.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lutra {

struct SplitName {
  std::string prefix;
  uint32_t number = 1;
  uint32_t count = 1;

  // nullopt if `path` is not such a name, or its numbers contradict each other.
  static std::optional<SplitName> Parse(std::string_view path) {
    constexpr std::string_view kPattern = "-#####-of-#####.gguf";
    if (path.size() <= kPattern.size()) return std::nullopt;
    const std::string_view end = path.substr(path.size() - kPattern.size());
    for (size_t i = 0; i < kPattern.size(); ++i) {
      const bool digit = end[i] >= '0' && end[i] <= '9';
      if (kPattern[i] == '#' ? !digit : end[i] != kPattern[i]) return std::nullopt;
    }
    SplitName name;
    std::from_chars(end.data() + 1, end.data() + 6, name.number);
    std::from_chars(end.data() + 10, end.data() + 15, name.count);
    if (name.number == 0 || name.number > name.count) return std::nullopt;
    name.prefix = path.substr(0, path.size() - kPattern.size());
    return name;
  }

  // The name of part `i` (from 1).
  std::string Path(uint32_t i) const { return prefix + Format("-%05u-of-%05u.gguf", i, count); }
};

}  // namespace lutra
