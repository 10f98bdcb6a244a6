#include "models/tokenizer/tokenizer.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "models/gguf.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/special_finder.h"
#include "models/tokenizer/spm.h"

namespace lutra {
namespace {

constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";  // U+2581

// A normal token of an "llama" vocabulary.
void AppendUnescaped(std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i).starts_with(kEscapedSpace)) {
      *out += ' ';
      i += kEscapedSpace.size();
    } else {
      *out += text[i++];
    }
  }
}

// A normal token of a byte-level vocabulary: characters back to bytes.
void AppendMapped(std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = std::max<size_t>(Utf8SequenceLength(text.substr(i)), 1);
    const auto lead = static_cast<uint8_t>(text[i]);
    uint32_t c = UINT32_MAX;  // longer ones and invalid bytes stand for no byte
    if (n == 1 && lead < 0x80) c = lead;
    if (n == 2) c = (lead & 0x1Fu) << 6 | (static_cast<uint8_t>(text[i + 1]) & 0x3Fu);
    const int byte = CharacterToByte(c);
    if (byte >= 0) {
      *out += static_cast<char>(byte);
    } else {
      *out += "[UNK_BYTE_0x";
      for (size_t k = i; k < i + n; ++k) {
        constexpr char kHex[] = "0123456789abcdef";
        *out += kHex[static_cast<uint8_t>(text[k]) >> 4];
        *out += kHex[static_cast<uint8_t>(text[k]) & 15];
      }
      *out += ']';
    }
    i += n;
  }
}

// Drops a space before ? ! . and ,
void CleanPunctuation(std::string* text) {
  std::string out;
  out.reserve(text->size());
  for (size_t i = 0; i < text->size(); ++i) {
    const char next = i + 1 < text->size() ? (*text)[i + 1] : '\0';
    if ((*text)[i] == ' ' && (next == '?' || next == '!' || next == '.' || next == ',')) continue;
    out += (*text)[i];
  }
  text->swap(out);
}

// An apostrophe between two spaces loses both.
void CleanApostrophes(std::string* text) {
  std::string out;
  out.reserve(text->size());
  for (size_t i = 0; i < text->size(); ++i) {
    if (text->compare(i, 3, " ' ") == 0) {
      out += '\'';
      i += 2;
    } else {
      out += (*text)[i];
    }
  }
  text->swap(out);
}

// Drops the space before 's 'm 're 've
void CleanContractions(std::string* text) {
  std::string out;
  out.reserve(text->size());
  for (size_t i = 0; i < text->size(); ++i) {
    const std::string_view rest = std::string_view(*text).substr(i);
    if (rest.starts_with(" 's") || rest.starts_with(" 'm") || rest.starts_with(" 're") ||
        rest.starts_with(" 've")) {
      continue;
    }
    out += (*text)[i];
  }
  text->swap(out);
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::FromGguf(const GgufFile& file) {
  return std::make_unique<Tokenizer>(VocabData::FromGguf(file));
}

Tokenizer::Tokenizer(const VocabData& data) : vocab_(data) {
  specials_ = std::make_unique<SpecialFinder>(vocab_);
  if (vocab_.is_spm()) {
    spm_ = std::make_unique<SpmEncoder>(vocab_);
    newline_ = vocab_.Find("<0x0A>");
  } else {
    bpe_ = std::make_unique<BpeEncoder>(vocab_, *data.merges);
    const std::vector<int32_t> ids = Encode("\n", false, false);
    if (!ids.empty()) newline_ = ids.front();
  }
}

Tokenizer::~Tokenizer() = default;

void Tokenizer::CheckId(int32_t id) const {
  if (vocab_.Contains(id)) return;
  Fail(ErrorCode::kInvalidArgument, "token id %d is outside the vocabulary: 0 to %d", id,
       n_vocab() - 1);
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool add_special,
                                       bool parse_special) const {
  if (text.size() > kMaxTextBytes) {
    Fail(ErrorCode::kResourceExhausted, "a text of %zu bytes, the limit (kMaxTextBytes) is %zu",
         text.size(), kMaxTextBytes);
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 2);
  if (add_special && add_bos()) ids.push_back(bos());
  bool after_special = true;
  for (const TextFragment& fragment : specials_->Split(text, parse_special)) {
    if (fragment.token != kNoToken) {
      ids.push_back(fragment.token);
      after_special = true;
    } else if (spm_) {
      spm_->Encode(fragment.text, after_special && vocab_.add_space_prefix(), &ids);
      after_special = false;
    } else {
      bpe_->Encode(fragment.text, &ids);
    }
  }
  if (add_special && add_eos()) ids.push_back(eos());
  return ids;
}

void Tokenizer::AppendPiece(int32_t id, bool special, std::string* out) const {
  CheckId(id);
  const std::string_view text = vocab_.text(id);
  switch (vocab_.type(id)) {
    case TokenType::kControl:
    case TokenType::kUnknown:
      if (special) *out += text;
      return;
    case TokenType::kUserDefined:
      *out += text;
      return;
    case TokenType::kNormal:
      if (vocab_.is_spm()) {
        AppendUnescaped(text, out);
      } else {
        AppendMapped(text, out);
      }
      return;
    case TokenType::kByte:
      if (vocab_.is_spm() && vocab_.byte_value(id) >= 0)
        *out += static_cast<char>(vocab_.byte_value(id));
      return;
    case TokenType::kUnused:
    case TokenType::kUndefined:
      return;
  }
}

std::string Tokenizer::TokenToPiece(int32_t id, bool special) const {
  std::string piece;
  AppendPiece(id, special, &piece);
  return piece;
}

std::string_view Tokenizer::TokenText(int32_t id) const {
  CheckId(id);
  return vocab_.text(id);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool remove_special,
                              bool unparse_special) const {
  bool drop_space = vocab_.add_space_prefix();
  if (remove_special && add_bos() && !ids.empty() && ids.front() == bos()) {
    drop_space = false;
    ids = ids.subspan(1);
  }
  if (remove_special && add_eos() && !ids.empty() && ids.back() == eos())
    ids = ids.first(ids.size() - 1);
  std::string text;
  for (const int32_t id : ids) {
    const size_t begin = text.size();
    AppendPiece(id, unparse_special, &text);
    if (drop_space && text.size() > begin && text[begin] == ' ') text.erase(begin, 1);
    drop_space = false;
  }
  if (vocab_.clean_spaces()) {
    CleanPunctuation(&text);
    CleanApostrophes(&text);
    CleanContractions(&text);
  }
  return text;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool special,
                             std::vector<int32_t> rendered)
    : tokenizer_(tokenizer), special_(special), rendered_(std::move(rendered)) {
  std::sort(rendered_.begin(), rendered_.end());
}

void StreamDecoder::Append(int32_t id, std::string* out) {
  const bool special = special_ || std::binary_search(rendered_.begin(), rendered_.end(), id);
  tokenizer_.AppendPiece(id, special, &pending_);
  Emit(Utf8CompletePrefix(pending_), out);
}

void StreamDecoder::Flush(std::string* out) { Emit(pending_.size(), out); }

void StreamDecoder::Emit(size_t n_bytes, std::string* out) {
  std::string_view text = std::string_view(pending_).substr(0, n_bytes);
  while (!text.empty()) {
    const size_t n = Utf8SequenceLength(text);
    if (n > 0) {
      *out += text.substr(0, n);
    } else {
      *out += "\xEF\xBF\xBD";
    }
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  pending_.erase(0, n_bytes);
}

}  // namespace lutra
