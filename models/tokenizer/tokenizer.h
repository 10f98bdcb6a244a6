// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/vocab.h"

namespace lutra {

class BpeEncoder;
class GgufFile;
class SpecialFinder;
class SpmEncoder;

// The longest text Encode takes.
inline constexpr size_t kMaxTextBytes = size_t{1} << 29;

// Immutable after construction: all members are const and may run in any number of threads at once.
// Texts are byte strings: they may hold zero bytes and need not be valid UTF-8.
class Tokenizer {
 public:
  // Throws what Vocab's constructor throws. Nothing of `file` is needed afterwards.
  static std::unique_ptr<Tokenizer> FromGguf(const GgufFile& file);
  explicit Tokenizer(const VocabData& data);
  ~Tokenizer();

  // Ids of `text`. `add_special` puts BOS in front and EOS behind if the vocabulary wants it (a BOS
  // that the text has itself stays); `parse_special` recognises control and unknown tokens in the
  // text: never set it for what users write. User-defined tokens are always recognised. Time is n
  // log n in the text. Throws Error(kResourceExhausted): kMaxTextBytes, kMaxSpecialMatches.
  std::vector<int32_t> Encode(std::string_view text, bool add_special, bool parse_special) const;

  // The text of a whole sequence. `remove_special` drops a first BOS and last EOS that Encode would
  // have added; `unparse_special` renders control and unknown tokens by their text instead of as
  // nothing. The first piece loses the space that Encode put in front; vocabularies that ask for it
  // get spaces before punctuation and contractions dropped. Throws Error(kInvalidArgument) for an
  // id outside the vocabulary.
  std::string Decode(std::span<const int32_t> ids, bool remove_special, bool unparse_special) const;

  // The bytes of one token as they stand in running text, perhaps a part of a UTF-8 sequence.
  // Control and unknown tokens give their text if `special`, else nothing. AppendPiece adds them to
  // *out and allocates only where *out must grow. Throw Error(kInvalidArgument) for an id outside
  // the vocabulary.
  std::string TokenToPiece(int32_t id, bool special) const;
  void AppendPiece(int32_t id, bool special, std::string* out) const;

  const Vocab& vocab() const { return vocab_; }
  int32_t n_vocab() const { return vocab_.size(); }
  // kNoToken where the vocabulary has none.
  int32_t bos() const { return vocab_.special(SpecialToken::kBos); }
  int32_t eos() const { return vocab_.special(SpecialToken::kEos); }
  int32_t eot() const { return vocab_.special(SpecialToken::kEot); }
  int32_t eom() const { return vocab_.special(SpecialToken::kEom); }
  int32_t unknown() const { return vocab_.special(SpecialToken::kUnknown); }
  int32_t padding() const { return vocab_.special(SpecialToken::kPadding); }
  int32_t newline() const { return newline_; }
  bool add_bos() const { return vocab_.add_bos(); }
  bool add_eos() const { return vocab_.add_eos(); }

  bool IsValid(int64_t id) const { return vocab_.Contains(id); }
  // False for ids outside the vocabulary.
  bool IsEog(int32_t id) const { return vocab_.Contains(id) && vocab_.is_eog(id); }
  bool IsControl(int32_t id) const {
    return vocab_.Contains(id) && vocab_.type(id) == TokenType::kControl;
  }
  // The text as the vocabulary spells it. Throws Error(kInvalidArgument) for an id outside the
  // vocabulary.
  std::string_view TokenText(int32_t id) const;
  // The first token spelt like this in the vocabulary, or kNoToken.
  int32_t FindToken(std::string_view text) const { return vocab_.Find(text); }

 private:
  void CheckId(int32_t id) const;

  Vocab vocab_;
  std::unique_ptr<SpecialFinder> specials_;
  std::unique_ptr<SpmEncoder> spm_;  // one of these two
  std::unique_ptr<BpeEncoder> bpe_;
  int32_t newline_ = kNoToken;
};

// Tokens to text as they come: what it gives out is always whole UTF-8 sequences; bytes that can
// belong to none become U+FFFD. For one thread. Keeps a reference to the tokenizer.
class StreamDecoder {
 public:
  // `special` renders control and unknown tokens; otherwise only those in `rendered` are (marks of
  // a chat format).
  explicit StreamDecoder(const Tokenizer& tokenizer, bool special = false,
                         std::vector<int32_t> rendered = {});

  // Appends to *out the text that is complete with this token; perhaps nothing.
  // Throws Error(kInvalidArgument) for an id outside the vocabulary.
  void Append(int32_t id, std::string* out);
  // Appends what was held back, sanitized; the decoder is then as new.
  void Flush(std::string* out);
  // Bytes held back: fewer than 4.
  size_t held_bytes() const { return pending_.size(); }

 private:
  void Emit(size_t n_bytes, std::string* out);

  const Tokenizer& tokenizer_;
  bool special_;
  std::vector<int32_t> rendered_;  // ascending
  std::string pending_;
};

}  // namespace lutra
