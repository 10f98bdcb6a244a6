#include "models/tokenizer/vocab.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "models/gguf.h"
#include "models/tokenizer/pretokenize.h"

namespace lutra {
namespace {

constexpr std::string_view kKeyPrefix = "tokenizer.ggml.";

struct SpecialKey {
  SpecialToken which;
  const char* key;
  const char* old_key;  // read where `key` is absent
};
constexpr SpecialKey kSpecialKeys[] = {
    {SpecialToken::kBos, "bos_token_id", nullptr},
    {SpecialToken::kEos, "eos_token_id", nullptr},
    {SpecialToken::kEot, "eot_token_id", nullptr},
    {SpecialToken::kEom, "eom_token_id", nullptr},
    {SpecialToken::kUnknown, "unknown_token_id", nullptr},
    {SpecialToken::kSeparator, "seperator_token_id", nullptr},  // so spelt in the format
    {SpecialToken::kPadding, "padding_token_id", nullptr},
    {SpecialToken::kMask, "mask_token_id", nullptr},
    {SpecialToken::kCls, "cls_token_id", nullptr},
    {SpecialToken::kFimPrefix, "fim_pre_token_id", "prefix_token_id"},
    {SpecialToken::kFimSuffix, "fim_suf_token_id", "suffix_token_id"},
    {SpecialToken::kFimMiddle, "fim_mid_token_id", "middle_token_id"},
    {SpecialToken::kFimPad, "fim_pad_token_id", nullptr},
    {SpecialToken::kFimRepo, "fim_rep_token_id", nullptr},
    {SpecialToken::kFimSeparator, "fim_sep_token_id", nullptr},
};
static_assert(std::size(kSpecialKeys) == kNumSpecialTokens);

// Bars and blanks of DeepSeek's names: U+FF5C and U+2581.
#define BAR "\xEF\xBD\x9C"
#define LOW "\xE2\x96\x81"

// Texts that name a special token where no key does. Of several in a vocabulary the first listed
// counts.
struct SpecialText {
  SpecialToken which;
  const char* text;
};
constexpr SpecialText kSpecialTexts[] = {
    {SpecialToken::kEot, "<|eot_id|>"},
    {SpecialToken::kEot, "<|im_end|>"},
    {SpecialToken::kEot, "<|end|>"},
    {SpecialToken::kEot, "<end_of_turn>"},
    {SpecialToken::kEot, "<|endoftext|>"},
    {SpecialToken::kEot, "<|end_of_text|>"},
    {SpecialToken::kEot, "<EOT>"},
    {SpecialToken::kEot, "_<EOT>"},
    {SpecialToken::kEot, "[EOT]"},
    {SpecialToken::kEot, "<" BAR "end" LOW "of" LOW "sentence" BAR ">"},
    {SpecialToken::kEot, "<end_of_utterance>"},
    {SpecialToken::kEom, "<|eom_id|>"},
    {SpecialToken::kFimPrefix, "<|fim_prefix|>"},
    {SpecialToken::kFimPrefix, "<fim-prefix>"},
    {SpecialToken::kFimPrefix, "<fim_prefix>"},
    {SpecialToken::kFimPrefix, "<" BAR "fim" LOW "begin" BAR ">"},
    {SpecialToken::kFimPrefix, "<PRE>"},
    {SpecialToken::kFimPrefix, LOW "<PRE>"},
    {SpecialToken::kFimSuffix, "<|fim_suffix|>"},
    {SpecialToken::kFimSuffix, "<fim-suffix>"},
    {SpecialToken::kFimSuffix, "<fim_suffix>"},
    {SpecialToken::kFimSuffix, "<" BAR "fim" LOW "hole" BAR ">"},
    {SpecialToken::kFimSuffix, "<SUF>"},
    {SpecialToken::kFimSuffix, LOW "<SUF>"},
    {SpecialToken::kFimMiddle, "<|fim_middle|>"},
    {SpecialToken::kFimMiddle, "<fim-middle>"},
    {SpecialToken::kFimMiddle, "<fim_middle>"},
    {SpecialToken::kFimMiddle, "<" BAR "fim" LOW "end" BAR ">"},
    {SpecialToken::kFimMiddle, "<MID>"},
    {SpecialToken::kFimMiddle, LOW "<MID>"},
    {SpecialToken::kFimPad, "<|fim_pad|>"},
    {SpecialToken::kFimPad, "<fim-pad>"},
    {SpecialToken::kFimPad, "<fim_pad>"},
    {SpecialToken::kFimPad, "<PAD>"},
    {SpecialToken::kFimPad, "[PAD]"},
    {SpecialToken::kFimRepo, "<|fim_repo|>"},
    {SpecialToken::kFimRepo, "<|repo_name|>"},
    {SpecialToken::kFimRepo, "<fim-repo>"},
    {SpecialToken::kFimRepo, "<REPO>"},
    {SpecialToken::kFimRepo, "<reponame>"},
    {SpecialToken::kFimSeparator, "<|file_sep|>"},
};

constexpr const char* kEogTexts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<" BAR "end" LOW "of" LOW "sentence" BAR ">",
    "[e~[",
};
#undef BAR
#undef LOW

// Marks of a chat format that are always rendered.
constexpr const char* kRenderedTexts[] = {"<|channel|>", "<|message|>", "<|start|>",
                                          "<|constrain|>"};

// The value of "<0xHH>", or -1.
int ParseByteToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return -1;
  uint8_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
  return error == std::errc() && end == text.data() + 5 ? value : -1;
}

std::string AsciiLower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 0x20);
  }
  return lower;
}

template <class T>
void CheckLength(const VocabData& data, const char* key, const std::vector<T>& values) {
  if (values.empty() || values.size() == data.tokens.size()) return;
  Fail(ErrorCode::kCorrupt,
       "%s: tokenizer.ggml.%s has %zu entries, tokenizer.ggml.tokens has %zu; convert the model "
       "again",
       Printable(data.source).c_str(), key, values.size(), data.tokens.size());
}

}  // namespace

VocabData VocabData::FromGguf(const GgufFile& file) {
  const auto key = [](const char* name) { return std::string(kKeyPrefix) + name; };
  VocabData data;
  data.source = file.path();
  const auto model = file.GetString(key("model"));
  if (!model) {
    Fail(ErrorCode::kCorrupt,
         "%s: no tokenizer.ggml.model: the file has no vocabulary; convert the model again",
         Printable(file.path()).c_str());
  }
  data.model = *model;
  data.pre = file.GetString(key("pre"));
  data.name = file.GetString("general.name").value_or("");
  if (const auto* tokens = file.GetStrings(key("tokens"))) data.tokens = *tokens;
  if (const auto scores = file.GetF32s(key("scores"))) {
    data.scores = *scores;
    CheckLength(data, "scores", data.scores);
    if (data.scores.empty() && !data.tokens.empty()) {
      Fail(ErrorCode::kCorrupt, "%s: tokenizer.ggml.scores is empty; convert the model again",
           Printable(file.path()).c_str());
    }
  }
  if (const auto types = file.GetI32s(key("token_type"))) {
    data.types = *types;
    if (data.types.empty() && !data.tokens.empty()) {
      Fail(ErrorCode::kCorrupt, "%s: tokenizer.ggml.token_type is empty; convert the model again",
           Printable(file.path()).c_str());
    }
  }
  if (const auto* merges = file.GetStrings(key("merges"))) data.merges = *merges;
  for (const SpecialKey& row : kSpecialKeys) {
    for (const char* name : {row.key, row.old_key}) {
      if (name == nullptr) continue;
      const GgufValue* value = file.Find(key(name));
      if (value == nullptr) continue;
      const std::optional<int64_t> id = value->is_array() ? std::nullopt : value->AsInt();
      if (id) {
        data.ids.emplace_back(name, *id);
      } else {
        Log(LogLevel::kWarning, "%s: %s is not an integer: ignored", Printable(file.path()).c_str(),
            key(name).c_str());
      }
    }
  }
  if (auto suppress = file.GetI32s(key("suppress_tokens"))) data.suppress = std::move(*suppress);
  data.add_bos = file.GetBool(key("add_bos_token"));
  data.add_eos = file.GetBool(key("add_eos_token"));
  data.add_space_prefix = file.GetBool(key("add_space_prefix"));
  return data;
}

Vocab::Vocab(const VocabData& data) : source_(Printable(data.source)) {
  special_.fill(kNoToken);
  if (data.model == "llama") {
    add_bos_ = true;
    add_space_prefix_ = true;
  } else if (data.model == "gpt2") {
    if (!data.pre) {
      Log(LogLevel::kWarning,
          "%s: no tokenizer.ggml.pre: 'default' is taken; tokens may differ from the publisher's",
          source_.c_str());
    }
    const std::string_view name = data.pre.value_or("default");
    pre_ = FindPreTokenizer(name);
    if (pre_ == nullptr) {
      Fail(ErrorCode::kUnsupported,
           "%s: tokenizer.ggml.pre '%s' is not known; known ones are those of Llama, Qwen, "
           "DeepSeek, "
           "SmolLM, Mistral (tekken), GPT-2 and their relatives",
           source_.c_str(), Printable(name).c_str());
    }
    add_bos_ = pre_->add_bos;
    clean_spaces_ = pre_->clean_spaces;
    if (!data.merges) {
      Fail(ErrorCode::kCorrupt, "%s: no tokenizer.ggml.merges; convert the model again",
           source_.c_str());
    }
  } else {
    Fail(ErrorCode::kUnsupported,
         "%s: tokenizer.ggml.model '%s' is not supported; 'llama' (SentencePiece) and 'gpt2' "
         "(byte-pair) are",
         source_.c_str(), Printable(data.model).c_str());
  }
  ReadTokens(data);
  ReadSpecialIds(data);
  FindSpecialTokensByText();
  FindEndOfGeneration();
  SetStripping(data);
  add_bos_ = data.add_bos.value_or(add_bos_);
  add_eos_ = data.add_eos.value_or(add_eos_);
  add_space_prefix_ = data.add_space_prefix.value_or(add_space_prefix_);
  for (const auto& [want, which, name] : {std::tuple{&add_bos_, SpecialToken::kBos, "BOS"},
                                          std::tuple{&add_eos_, SpecialToken::kEos, "EOS"}}) {
    if (!*want || special(which) != kNoToken) continue;
    Log(LogLevel::kWarning, "%s: %s shall be added, but the vocabulary has none", source_.c_str(),
        name);
    *want = false;
  }
}

void Vocab::ReadTokens(const VocabData& data) {
  const size_t n = data.tokens.size();
  if (n == 0) {
    Fail(ErrorCode::kCorrupt,
         "%s: tokenizer.ggml.tokens is absent or empty; convert the model again", source_.c_str());
  }
  if (n > kMaxVocabTokens) {
    Fail(ErrorCode::kResourceExhausted, "%s: %zu tokens, the limit (kMaxVocabTokens) is %zu",
         source_.c_str(), n, kMaxVocabTokens);
  }
  CheckLength(data, "scores", data.scores);
  CheckLength(data, "token_type", data.types);
  size_t bytes = 0;
  for (const std::string_view text : data.tokens) bytes += text.size() + 20;
  arena_.reserve(bytes);
  offsets_.reserve(n + 1);
  offsets_.push_back(0);
  size_t empty = 0;
  for (size_t i = 0; i < n; ++i) {
    const std::string_view text = data.tokens[i];
    if (text.size() > kMaxTokenBytes) {
      Fail(ErrorCode::kResourceExhausted,
           "%s: token %zu has %zu bytes, the limit (kMaxTokenBytes) is %zu", source_.c_str(), i,
           text.size(), kMaxTokenBytes);
    }
    if (text.empty()) {
      ++empty;
      arena_ += Format("[EMPTY_%zu]", i);
    } else {
      arena_ += text;
    }
    offsets_.push_back(arena_.size());
    max_token_bytes_ = std::max(max_token_bytes_, offsets_[i + 1] - offsets_[i]);
  }
  if (empty > 0) Log(LogLevel::kWarning, "%s: %zu tokens have no text", source_.c_str(), empty);
  const size_t duplicates = index_.Build(arena_.data(), offsets_.data(), n);
  if (duplicates > 0) {
    Log(LogLevel::kWarning, "%s: %zu tokens repeat the text of an earlier one, which is taken",
        source_.c_str(), duplicates);
  }

  types_.assign(n, TokenType::kNormal);
  flags_.assign(n, 0);
  size_t bad_types = 0, bad_bytes = 0;
  for (size_t i = 0; i < data.types.size(); ++i) {
    const int32_t type = data.types[i];
    bad_types += type < 1 || type > 6;
    types_[i] = type < 1 || type > 6 ? TokenType::kUndefined : static_cast<TokenType>(type);
    bad_bytes += types_[i] == TokenType::kByte && ParseByteToken(text(static_cast<int32_t>(i))) < 0;
  }
  if (bad_types > 0)
    Log(LogLevel::kWarning, "%s: %zu tokens of unknown type", source_.c_str(), bad_types);
  if (bad_bytes > 0) {
    Log(LogLevel::kWarning,
        "%s: %zu byte tokens are not named <0x00> to <0xFF>: they render as nothing",
        source_.c_str(), bad_bytes);
  }

  if (is_spm()) scores_ = data.scores;
  for (size_t i = 0; i < scores_.size(); ++i) {
    if (!std::isnan(scores_[i])) continue;
    Fail(ErrorCode::kCorrupt,
         "%s: tokenizer.ggml.scores[%zu] is not a number; convert the model again", source_.c_str(),
         i);
  }
  for (const int32_t id : data.suppress) {
    if (Contains(id)) suppressed_ids_.push_back(id);
  }
  if (suppressed_ids_.size() != data.suppress.size()) {
    Log(LogLevel::kWarning,
        "%s: %zu ids of tokenizer.ggml.suppress_tokens are outside the vocabulary", source_.c_str(),
        data.suppress.size() - suppressed_ids_.size());
  }
}

void Vocab::ReadSpecialIds(const VocabData& data) {
  const auto set_default = [this](SpecialToken which, int32_t id) {
    if (Contains(id)) Special(which) = id;
  };
  set_default(SpecialToken::kBos, is_spm() ? 1 : pre_->has_bos_default ? 11 : kNoToken);
  set_default(SpecialToken::kEos, is_spm() ? 2 : 11);
  if (is_spm()) set_default(SpecialToken::kUnknown, 0);
  for (const SpecialKey& row : kSpecialKeys) {
    for (const char* name : {row.old_key, row.key}) {  // the new name wins
      if (name == nullptr) continue;
      for (const auto& [key, id] : data.ids) {
        if (key != name) continue;
        if (Contains(id)) {
          Special(row.which) = static_cast<int32_t>(id);
        } else {
          Log(LogLevel::kWarning,
              "%s: tokenizer.ggml.%s = %lld is outside the vocabulary of %d tokens: ignored",
              source_.c_str(), name, static_cast<long long>(id), size());
        }
      }
    }
  }
}

void Vocab::MakeControl(int32_t id) {
  if (types_[id] == TokenType::kControl) return;
  Log(LogLevel::kDebug, "%s: token %d '%s' is taken for a control token", source_.c_str(), id,
      Printable(text(id)).c_str());
  types_[id] = TokenType::kControl;
}

void Vocab::FindSpecialTokensByText() {
  for (const SpecialText& row : kSpecialTexts) {
    if (special(row.which) != kNoToken) continue;
    const int32_t id = Find(row.text);
    if (id == kNoToken) continue;
    Special(row.which) = id;
    MakeControl(id);
  }
  for (const SpecialToken which :
       {SpecialToken::kFimPad, SpecialToken::kFimRepo, SpecialToken::kFimSeparator}) {
    if (special(which) != kNoToken) flags_[special(which)] |= kEogFlag;
  }
}

void Vocab::FindEndOfGeneration() {
  for (const char* text : kEogTexts) {
    const int32_t id = Find(text);
    if (id == kNoToken) continue;
    flags_[id] |= kEogFlag;
    MakeControl(id);
  }
  for (const char* text : kRenderedTexts) {
    const int32_t id = Find(text);
    if (id != kNoToken) types_[id] = TokenType::kUserDefined;
  }
  for (const SpecialToken which : {SpecialToken::kEos, SpecialToken::kEot, SpecialToken::kEom}) {
    if (special(which) != kNoToken) flags_[special(which)] |= kEogFlag;
  }
  const auto in_set = [this](const char* text) {
    const int32_t id = Find(text);
    return id != kNoToken && is_eog(id);
  };
  const auto leave = [this](const char* text, TokenType type) {
    const int32_t id = Find(text);
    flags_[id] &= static_cast<uint8_t>(~kEogFlag);
    types_[id] = type;
  };
  // Harmony: a message ends with <|end|>, a turn with one of the others.
  const bool call = in_set("<|call|>");
  if (in_set("<|end|>") &&
      ((in_set("<|return|>") && (call || in_set("<|calls|>"))) || (in_set("<|flush|>") && call))) {
    leave("<|end|>", TokenType::kUserDefined);
  }
  if (in_set("<|tool_response>") && in_set("</s>")) leave("</s>", TokenType::kNormal);
  for (int32_t id = 0; id < size(); ++id) {
    if (is_eog(id)) eog_ids_.push_back(id);
  }
  if (eog_ids_.empty()) {
    Log(LogLevel::kWarning, "%s: no token ends a generation", source_.c_str());
  }
}

void Vocab::SetStripping(const VocabData& data) {
  const auto set = [this](const char* text, Flag flag, bool on) {
    const int32_t id = Find(text);
    if (id == kNoToken) return;
    flags_[id] = static_cast<uint8_t>(on ? flags_[id] | flag : flags_[id] & ~flag);
  };
  // GGUF has no key for these.
  const std::string model_name = AsciiLower(data.name);
  if (model_name.find("phi-3") != std::string::npos ||
      model_name.find("phi3") != std::string::npos) {
    for (int32_t id = 0; id < size(); ++id) {
      const TokenType t = types_[id];
      if (t == TokenType::kControl || t == TokenType::kUserDefined || t == TokenType::kUnknown) {
        flags_[id] |= kStripRight;
      }
    }
    set("</s>", kStripRight, true);
    for (const char* text : {"<unk>", "<s>", "<|endoftext|>"}) set(text, kStripRight, false);
  }
  if (data.pre == "modern-bert") set("[MASK]", kStripLeft, true);
}

int Vocab::byte_value(int32_t id) const {
  return types_[id] == TokenType::kByte ? ParseByteToken(text(id)) : -1;
}

}  // namespace lutra
