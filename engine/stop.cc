#include "engine/stop.h"

#include <limits>

#include "engine/limits.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"

namespace lutra {

static_assert(kMaxStopBytes < std::numeric_limits<uint16_t>::max());
static_assert(kMaxStopStrings < std::numeric_limits<int16_t>::max());

StopFilter::StopFilter(std::span<const std::string> stops) {
  if (stops.size() > kMaxStopStrings) {
    Fail(ErrorCode::kInvalidArgument, "there are %zu stop strings, at most %zu are taken",
         stops.size(), kMaxStopStrings);
  }
  size_t n_bytes = 0;
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty()) Fail(ErrorCode::kInvalidArgument, "stop string %zu is empty", i);
    n_bytes += stops[i].size();
    stop_bytes_.push_back(stops[i].size());
  }
  if (n_bytes > kMaxStopBytes) {
    Fail(ErrorCode::kInvalidArgument, "the stop strings have %zu bytes together, at most %zu",
         n_bytes, kMaxStopBytes);
  }
  // The trie. 0 is the root and, until the failure links are filled in, "no edge".
  const auto add_node = [&](size_t depth) {
    nodes_.push_back({std::vector<uint16_t>(256), static_cast<uint16_t>(depth), -1});
    return static_cast<uint16_t>(nodes_.size() - 1);
  };
  add_node(0);
  for (size_t i = 0; i < stops.size(); ++i) {
    size_t node = 0;
    for (const char c : stops[i]) {
      const uint8_t byte = static_cast<uint8_t>(c);
      if (nodes_[node].next[byte] == 0) {
        const uint16_t added = add_node(nodes_[node].depth + size_t{1});
        nodes_[node].next[byte] = added;
      }
      node = nodes_[node].next[byte];
    }
    if (nodes_[node].stop < 0) nodes_[node].stop = static_cast<int16_t>(i);
  }
  // Breadth first: fail[n] is the node of the longest proper suffix of n's text that is in the
  // trie. Missing edges become those of the suffix, so that each byte takes one step.
  std::vector<uint16_t> fail(nodes_.size()), queue = {0};
  for (size_t i = 0; i < queue.size(); ++i) {
    const uint16_t node = queue[i];
    Node& n = nodes_[node];
    if (n.stop < 0) n.stop = nodes_[fail[node]].stop;
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint16_t child = n.next[byte];
      const uint16_t shorter = node == 0 ? uint16_t{0} : nodes_[fail[node]].next[byte];
      if (child == 0) {
        n.next[byte] = shorter;
      } else {
        fail[child] = shorter;
        queue.push_back(child);
      }
    }
  }
}

std::string_view StopFilter::Feed(std::string_view bytes) {
  released_.clear();
  if (stopped()) return released_;
  for (const char c : bytes) {
    held_ += c;
    node_ = nodes_[node_].next[static_cast<uint8_t>(c)];
    const int stop = nodes_[node_].stop;
    if (stop < 0) continue;
    stop_index_ = stop;
    held_.resize(held_.size() - stop_bytes_[static_cast<size_t>(stop)]);
    released_.swap(held_);
    held_.clear();
    return released_;
  }
  const size_t certain = held_.size() - nodes_[node_].depth;
  const size_t n = Utf8CompletePrefix(std::string_view(held_).substr(0, certain));
  released_.assign(held_, 0, n);
  held_.erase(0, n);
  return released_;
}

std::string_view StopFilter::Finish() {
  released_.swap(held_);
  held_.clear();
  node_ = 0;
  return released_;
}

void StopFilter::Reset() {
  node_ = 0;
  stop_index_ = -1;
  held_.clear();
  released_.clear();
}

}  // namespace lutra
