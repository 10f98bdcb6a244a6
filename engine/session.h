// One conversation: its tokens and their keys and values.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "kernels/base/aligned.h"

namespace lutra {

// Belongs to one thread at a time. The engine must outlive it.
class Session {
 public:
  // Plans for the engine's context; memory is touched only as it fills.
  explicit Session(Engine& engine);

  uint32_t n_ctx() const { return n_ctx_; }
  // What the cache holds.
  std::span<const int32_t> tokens() const { return tokens_; }

  // Called after each part of a long prompt with tokens done and in all; returning false stops (Error kCancelled, what was
  // done stays).
  using FeedProgress = std::function<bool(size_t done, size_t total)>;

  // Appends tokens (at least one) and returns the logits [n_vocab] after the last, valid until the next forward pass. Throws
  // Error(kResourceExhausted) if they do not fit the context, before anything is computed.
  std::span<const float> Feed(std::span<const int32_t> tokens, const FeedProgress& progress = {});

  // Forgets everything from token n on (n <= tokens().size()).
  void Truncate(size_t n);

  // How many of `tokens` the cache holds already, as a prefix.
  size_t CommonPrefix(std::span<const int32_t> tokens) const;

 private:
  Engine& engine_;
  uint32_t n_ctx_;
  AlignedArray<uint8_t> memory_;
  std::vector<uint8_t*> pages_;
  std::vector<int32_t> tokens_;
  std::vector<BatchToken> batch_;
};

}  // namespace lutra
