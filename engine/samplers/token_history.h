// The last tokens of a sequence, for stages that look back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lutra {

// Holds the last `capacity` >= 1 tokens. One thread at a time; takes its memory when made.
class TokenHistory {
 public:
  explicit TokenHistory(size_t capacity) : ring_(capacity) {}

  size_t size() const { return size_; }
  bool full() const { return size_ == ring_.size(); }
  // The i-th token counted back from the last one, i < size().
  int32_t Back(size_t i) const {
    return ring_[next_ > i ? next_ - 1 - i : next_ + ring_.size() - 1 - i];
  }
  void Push(int32_t token) {
    ring_[next_] = token;
    next_ = next_ + 1 == ring_.size() ? 0 : next_ + 1;
    size_ = std::min(size_ + 1, ring_.size());
  }
  void Clear() { next_ = size_ = 0; }

 private:
  std::vector<int32_t> ring_;
  size_t next_ = 0;
  size_t size_ = 0;
};

}  // namespace lutra
