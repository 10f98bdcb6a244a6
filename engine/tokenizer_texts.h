// A tokenizer as sampling sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/token_texts.h"
#include "models/tokenizer/tokenizer.h"

namespace lutra {

// Keeps a reference to the tokenizer. Const and thread-safe.
class TokenizerTexts final : public TokenTexts {
 public:
  explicit TokenizerTexts(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  size_t size() const override { return static_cast<size_t>(tokenizer_.n_vocab()); }
  void TokenText(int32_t id, std::string* out) const override {
    out->clear();
    tokenizer_.AppendPiece(id, true, out);
  }
  std::vector<int32_t> Tokenize(std::string_view text) const override {
    return tokenizer_.Encode(text, false, false);
  }
  bool IsEndOfGeneration(int32_t id) const override { return tokenizer_.IsEog(id); }

 private:
  const Tokenizer& tokenizer_;
};

}  // namespace lutra
