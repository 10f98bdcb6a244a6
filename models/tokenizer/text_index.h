// A hash index from token texts to ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace lutra {

// Open addressing; entries are added once and never removed. The texts live elsewhere: `arena` and
// `offsets` are those of the vocabulary, whose text `id` is arena[offsets[id], offsets[id + 1]).
class TextIndex {
 public:
  TextIndex() = default;

  // Reads `arena` and `offsets` ([n + 1]) also later: both stay where they are. Returns how many
  // texts occur again; the first id keeps the text.
  size_t Build(const char* arena, const size_t* offsets, size_t n) {
    arena_ = arena;
    offsets_ = offsets;
    size_t capacity = 16;
    while (capacity < 2 * n) capacity *= 2;
    slots_.assign(capacity, Slot{0, -1});
    size_t duplicates = 0;
    for (size_t id = 0; id < n; ++id) {
      const std::string_view text = Text(static_cast<int32_t>(id));
      const uint32_t hash = Hash(text);
      Slot& slot = slots_[Probe(text, hash)];
      if (slot.id >= 0) {
        ++duplicates;
      } else {
        slot = {hash, static_cast<int32_t>(id)};
      }
    }
    return duplicates;
  }

  // The id of `text`, or -1.
  int32_t Find(std::string_view text) const {
    return slots_.empty() ? -1 : slots_[Probe(text, Hash(text))].id;
  }

 private:
  struct Slot {
    uint32_t hash;
    int32_t id;  // -1: free
  };

  static uint32_t Hash(std::string_view text) {
    const uint64_t h = std::hash<std::string_view>()(text);
    return static_cast<uint32_t>(h ^ (h >> 32));
  }

  std::string_view Text(int32_t id) const {
    return {arena_ + offsets_[id], offsets_[id + 1] - offsets_[id]};
  }

  // The slot that holds `text`, or the free one where it would go: at least half of them are free.
  size_t Probe(std::string_view text, uint32_t hash) const {
    size_t i = hash & (slots_.size() - 1);
    while (slots_[i].id >= 0 && (slots_[i].hash != hash || Text(slots_[i].id) != text)) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return i;
  }

  const char* arena_ = nullptr;
  const size_t* offsets_ = nullptr;
  std::vector<Slot> slots_;
};

}  // namespace lutra
