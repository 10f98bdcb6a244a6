// Tokenizing in the manner of SentencePiece: adjacent symbols whose joined text is a token are
// joined, greatest score first, leftmost first among equals. Source: tokenizer.ggml.model "llama"
// of GGUF. No normalisation but spaces to U+2581.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/tokenizer/vocab.h"

namespace lutra {

class SpmEncoder {
 public:
  // Keeps a reference to `vocab`.
  explicit SpmEncoder(const Vocab& vocab);

  // Appends the ids of `text`, any bytes, to *out. `space_prefix` puts a space in front. Time is
  // n log n in the text, times the length of the longest token. text.size() < 2^30. Thread-safe.
  void Encode(std::string_view text, bool space_prefix, std::vector<int32_t>* out) const;

 private:
  const Vocab& vocab_;
  int32_t byte_token_[256];  // what stands for a byte that is part of no token, or kNoToken
};

}  // namespace lutra
