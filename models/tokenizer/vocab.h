// The vocabulary of a model: token texts, types, scores and special ids, checked as they are read.
// Source: GGUF metadata keys `tokenizer.ggml.*`; special tokens found by text follow llama.cpp's
// rules of August 2026, since model files rely on them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/tokenizer/text_index.h"

namespace lutra {

class GgufFile;

inline constexpr int32_t kNoToken = -1;

// Limits on what a file may ask for. The largest published vocabularies have about 262 thousand
// tokens of at most a few hundred bytes.
inline constexpr size_t kMaxVocabTokens = size_t{1} << 22;
inline constexpr size_t kMaxTokenBytes = size_t{1} << 16;
inline constexpr size_t kMaxMerges = size_t{1} << 24;

enum class TokenType : uint8_t {  // fixed by GGUF, never renumber
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

enum class SpecialToken : uint8_t {
  kBos,
  kEos,
  kEot,
  kEom,
  kUnknown,
  kSeparator,
  kPadding,
  kMask,
  kCls,
  kFimPrefix,
  kFimSuffix,
  kFimMiddle,
  kFimPad,
  kFimRepo,
  kFimSeparator,
};
inline constexpr size_t kNumSpecialTokens = 15;

// A vocabulary as a file states it, nothing checked yet. Views need to live until Vocab is built.
struct VocabData {
  std::string source;      // for messages: the path
  std::string_view model;  // tokenizer.ggml.model: "llama" or "gpt2"
  std::optional<std::string_view> pre;
  std::string_view name;  // general.name
  std::vector<std::string_view> tokens;
  std::vector<float> scores;   // empty, or one a token
  std::vector<int32_t> types;  // empty, or one a token
  std::optional<std::vector<std::string_view>> merges;
  // Ids as stated, also out of range: key without "tokenizer.ggml.", value.
  std::vector<std::pair<std::string, int64_t>> ids;
  std::vector<int32_t> suppress;
  std::optional<bool> add_bos, add_eos, add_space_prefix;

  // Throws Error(kCorrupt, kUnsupported) where the file has no vocabulary or a key of the wrong
  // type.
  static VocabData FromGguf(const GgufFile& file);
};

struct PreTokenizer;

// Immutable after construction, safe to share between threads. Owns its texts.
class Vocab {
 public:
  // Throws Error: kCorrupt (lengths of arrays differ, no tokens, no merges, a score that is no
  // number), kUnsupported (tokenizer model or pre-tokenizer), kResourceExhausted (the limits
  // above). Ids out of range, duplicate or empty texts and malformed byte tokens are mended with a
  // warning.
  explicit Vocab(const VocabData& data);
  Vocab(const Vocab&) = delete;  // the index points into the texts
  Vocab& operator=(const Vocab&) = delete;

  bool is_spm() const { return pre_ == nullptr; }
  const PreTokenizer* pre() const { return pre_; }  // nullptr for "llama" vocabularies

  int32_t size() const { return static_cast<int32_t>(types_.size()); }
  bool Contains(int64_t id) const { return id >= 0 && id < size(); }
  // The following take ids that Contains().
  std::string_view text(int32_t id) const {
    return std::string_view(arena_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  TokenType type(int32_t id) const { return types_[id]; }
  float score(int32_t id) const { return scores_.empty() ? 0.0f : scores_[id]; }
  bool is_eog(int32_t id) const { return flags_[id] & kEogFlag; }
  // White space before / after the token belongs to it where it is found in a text.
  bool strips_left(int32_t id) const { return flags_[id] & kStripLeft; }
  bool strips_right(int32_t id) const { return flags_[id] & kStripRight; }
  // The byte that a token `<0xHH>` of type byte stands for, or -1.
  int byte_value(int32_t id) const;

  // The first id with this text, or kNoToken.
  int32_t Find(std::string_view text) const { return index_.Find(text); }
  size_t max_token_bytes() const { return max_token_bytes_; }

  // kNoToken where there is none.
  int32_t special(SpecialToken which) const { return special_[static_cast<size_t>(which)]; }
  std::span<const int32_t> eog_ids() const { return eog_ids_; }  // ascending
  std::span<const int32_t> suppressed_ids() const {
    return suppressed_ids_;
  }  // never to be sampled

  bool add_bos() const { return add_bos_; }
  bool add_eos() const { return add_eos_; }
  bool add_space_prefix() const { return add_space_prefix_; }
  bool clean_spaces() const { return clean_spaces_; }

 private:
  enum Flag : uint8_t { kEogFlag = 1, kStripLeft = 2, kStripRight = 4 };

  void ReadTokens(const VocabData& data);
  void ReadSpecialIds(const VocabData& data);
  void FindSpecialTokensByText();
  void FindEndOfGeneration();
  void SetStripping(const VocabData& data);
  int32_t& Special(SpecialToken which) { return special_[static_cast<size_t>(which)]; }
  void MakeControl(int32_t id);

  std::string source_;
  const PreTokenizer* pre_ = nullptr;
  std::string arena_;            // all texts, one after another
  std::vector<size_t> offsets_;  // [size + 1]
  std::vector<TokenType> types_;
  std::vector<uint8_t> flags_;
  std::vector<float> scores_;
  TextIndex index_;
  size_t max_token_bytes_ = 0;
  std::array<int32_t, kNumSpecialTokens> special_;
  std::vector<int32_t> eog_ids_;
  std::vector<int32_t> suppressed_ids_;
  bool add_bos_ = false, add_eos_ = false, add_space_prefix_ = false, clean_spaces_ = false;
};

}  // namespace lutra
