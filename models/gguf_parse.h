// One GGUF file as it stands: header, metadata, tensor infos, all checked. GgufFile joins the parts
// of a split model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "models/gguf.h"

namespace lutra {

inline constexpr const char* kGgufAlignmentKey = "general.alignment";

// In file order; `index` views the strings of `entries` (moving both together keeps it right).
struct GgufMetadata {
  std::vector<std::pair<std::string, GgufValue>> entries;
  std::unordered_map<std::string_view, size_t> index;

  const GgufValue* Find(std::string_view key) const {
    const auto it = index.find(key);
    return it == index.end() ? nullptr : &entries[it->second].second;
  }
};

struct GgufPart {
  uint32_t version;
  uint64_t alignment;
  GgufMetadata metadata;
  std::vector<GgufTensor>
      tensors;  // part == 0; offsets absolute, in bounds, disjoint; names not yet compared
};

// Parses `bytes`, which the result views; `path` stands in messages. At most max_tensors. Throws
// Error as GgufFile::Open.
GgufPart ParseGguf(std::span<const uint8_t> bytes, const std::string& path, uint64_t max_tensors);

}  // namespace lutra
