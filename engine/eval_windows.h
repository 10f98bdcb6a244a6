// A text cut into windows for measuring, and their forward passes. Source of the cutting: llama.cpp's perplexity tool, so that
// numbers compare.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "kernels/base/aligned.h"

namespace lutra {

inline constexpr uint32_t kEvalContext = 512;

struct EvalOptions {
  uint32_t n_ctx = kEvalContext;  // tokens a window
  int64_t max_windows = -1;       // negative: all
  // 0: windows beside each other, the second half of each is scored. Otherwise a window begins every `stride` tokens and its
  // last `stride` tokens are scored. (llama.cpp's windows are then longer than its -c; its "calculation chunk" is our n_ctx.)
  uint32_t stride = 0;
  uint64_t skip_windows = 0;  // left out at the beginning of the text
};

// The tokens of a text, with BOS where the vocabulary wants one and never an EOS.
std::vector<int32_t> EvalTokens(const Tokenizer& tokenizer, std::string_view text,
                                bool parse_special = false);

// Immutable.
class EvalWindows {
 public:
  // bos: what the first token of a window becomes (not with a stride), or kNoToken. Throws Error(kInvalidArgument) if the tokens
  // do not fill one window, or for options out of range.
  EvalWindows(std::vector<int32_t> tokens, int32_t bos, const EvalOptions& options);
  // Of a text in the tokenizer's tokens.
  static EvalWindows FromText(const Tokenizer& tokenizer, std::string_view text,
                              const EvalOptions& options, bool parse_special = false);

  size_t size() const { return n_windows_; }
  uint32_t n_ctx() const { return n_ctx_; }
  // Positions of a window whose next token is scored: [scored_begin, scored_end), scored_end = n_ctx - 1.
  uint32_t scored_begin() const { return scored_begin_; }
  uint32_t scored_end() const { return n_ctx_ - 1; }
  size_t n_scored() const { return scored_end() - scored_begin(); }

  // The tokens to compute for window i, n_ctx of them.
  void Get(size_t i, std::vector<int32_t>* ids) const;
  // The token that follows position pos of window i.
  int32_t target(size_t i, size_t pos) const { return tokens_[i * step_ + pos + 1]; }
  // All tokens of the text (as they were, without the BOS of each window).
  std::span<const int32_t> tokens() const { return tokens_; }

 private:
  std::vector<int32_t> tokens_;
  int32_t bos_;
  uint32_t n_ctx_, step_, scored_begin_;
  size_t n_windows_;
};

// What an engine needs for measuring windows of n_ctx tokens: context, batch and room for many logits, at most
// kEvalLogitsBytes of them. Other fields stay.
inline constexpr uint64_t kEvalLogitsBytes = uint64_t{160} << 20;
EngineOptions ForEvaluation(EngineOptions options, uint32_t n_ctx);

// Runs windows through an engine, each from position 0, with a cache of its own. Belongs to one thread.
class WindowRunner {
 public:
  WindowRunner(Engine& engine, uint32_t n_ctx);
  // With scratch of its own and another type of KV cache than the engine's, over the same weights.
  WindowRunner(Engine& engine, uint32_t n_ctx, KvType kv_type);

  Engine& engine() const { return engine_; }
  Decoder& decoder() const { return *decoder_; }
  // One forward pass: ids at positions pos, pos + 1 ..., logits for the positions in [logits_begin, logits_end).
  void Forward(std::span<const int32_t> ids, size_t pos, size_t logits_begin, size_t logits_end);
  // [n_vocab] of the i-th position of the last pass that has logits.
  std::span<const float> logits(size_t i) const { return decoder_->logits(i); }

 private:
  void MakePages(uint32_t n_ctx);

  Engine& engine_;
  std::unique_ptr<Decoder> own_decoder_;  // or none
  Decoder* decoder_;
  AlignedArray<uint8_t> memory_;
  std::vector<uint8_t*> pages_;
  std::vector<BatchToken> batch_;
};

// Which positions of each window are computed, [0, end), and which of them have logits.
struct WindowPass {
  size_t end, logits_begin, logits_end;
  // Just what is needed for the scored positions.
  static WindowPass ForScores(const EvalWindows& windows) {
    return {windows.scored_end(), windows.scored_begin(), windows.scored_end()};
  }
};

// Computes all windows with all runners, part by part, in parts that suit all of them. After each part with logits calls
// scored(window, first position, how many): they lie in every runner from 0 on. After each window calls finished(window); false
// stops. Returns false if windows are left.
bool RunWindows(std::span<WindowRunner* const> runners, const EvalWindows& windows,
                const WindowPass& pass,
                FunctionRef<void(size_t window, size_t pos, size_t n)> scored,
                FunctionRef<bool(size_t window)> finished);

}  // namespace lutra
