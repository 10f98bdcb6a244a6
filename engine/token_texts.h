// What sampling needs to know about a vocabulary. The tokenizer's owner implements it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lutra {

// Const and safe to use from several threads at once. Must outlive every Sampler made with it.
class TokenTexts {
 public:
  virtual ~TokenTexts() = default;

  // Number of tokens; at most the n_vocab of the logits.
  virtual size_t size() const = 0;
  // Replaces `out` by the bytes of token `id`, 0 <= id < size(), as they appear in generated text.
  virtual void TokenText(int32_t id, std::string* out) const = 0;
  // Tokens of `text` as a continuation: no BOS, no added space, special tokens not recognized.
  virtual std::vector<int32_t> Tokenize(std::string_view text) const = 0;
  virtual bool IsEndOfGeneration(int32_t id) const = 0;
};

}  // namespace lutra
