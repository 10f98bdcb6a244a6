// Small vocabularies made by hand.
#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/vocab.h"

namespace lutra::testing {

// A VocabData that owns its texts. Ids are given in the order of Add.
class SmallVocab {
 public:
  // <unk>, <s>, </s>, 256 byte tokens, then what the test adds.
  static SmallVocab Spm() {
    SmallVocab v;
    v.data.model = "llama";
    v.Add("<unk>", TokenType::kUnknown);
    v.Add("<s>", TokenType::kControl);
    v.Add("</s>", TokenType::kControl);
    for (unsigned b = 0; b < 256; ++b) v.Add(Format("<0x%02X>", b), TokenType::kByte);
    return v;
  }

  // The 256 characters of bytes, id = byte; then what the test adds.
  static SmallVocab Bpe(std::string_view pre) {
    SmallVocab v;
    v.data.model = "gpt2";
    v.data.pre = pre;
    v.data.merges.emplace();
    for (unsigned b = 0; b < 256; ++b) {
      std::string text;
      Utf8Append(ByteToCharacter(static_cast<uint8_t>(b)), &text);
      v.Add(text, TokenType::kNormal);
    }
    return v;
  }

  SmallVocab() { data.source = "small.gguf"; }
  SmallVocab(SmallVocab&&) = default;

  int32_t Add(std::string_view text, TokenType type = TokenType::kNormal, float score = 0) {
    data.tokens.push_back(texts_.emplace_back(text));
    data.types.push_back(static_cast<int32_t>(type));
    data.scores.push_back(score);
    return static_cast<int32_t>(data.tokens.size()) - 1;
  }
  // A merge and the token it makes (its id; the old one if the text is there).
  int32_t Merge(std::string_view left, std::string_view right) {
    data.merges->push_back(texts_.emplace_back(std::string(left) + " " + std::string(right)));
    const std::string joined = std::string(left) + std::string(right);
    for (size_t i = 0; i < data.tokens.size(); ++i) {
      if (data.tokens[i] == joined) return static_cast<int32_t>(i);
    }
    return Add(joined);
  }
  void RawMerge(std::string_view merge) { data.merges->push_back(texts_.emplace_back(merge)); }
  void SetId(const char* key, int64_t id) { data.ids.emplace_back(key, id); }

  VocabData data;

 private:
  std::deque<std::string> texts_;
};

}  // namespace lutra::testing
