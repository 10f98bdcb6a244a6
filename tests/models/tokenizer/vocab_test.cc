// Vocabularies as files state them, right and wrong.
#include "models/tokenizer/vocab.h"

#include <cmath>
#include <limits>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "models/tokenizer/pretokenize.h"
#include "models/tokenizer/tokenizer.h"
#include "models/gguf.h"
#include "tests/gguf_builder.h"
#include "tests/models/tokenizer/small_vocab.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using testing::SmallVocab;
using Ids = std::vector<int32_t>;

ErrorCode CodeOf(const VocabData& data) {
  try {
    const Tokenizer tokenizer(data);
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("small.gguf") != std::string::npos);
    return e.code();
  }
  FAIL("no error");
  return ErrorCode::kInternal;
}

// Uses everything that a vocabulary feeds.
void Exercise(const Tokenizer& tokenizer) {
  std::string all("a<s> b</s>\xFF\xC3\xA9\n<0x-1>\0 <|im_end|>", 33);
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  for (const bool special : {false, true}) {
    for (const int32_t id : tokenizer.Encode(all, true, special)) CHECK(tokenizer.IsValid(id));
    StreamDecoder stream(tokenizer, special);
    std::string out;
    Ids ids;
    for (int32_t id = 0; id < tokenizer.n_vocab(); ++id) {
      ids.push_back(id);
      stream.Append(id, &out);
    }
    stream.Flush(&out);
    CHECK(Utf8IsValid(out));
    tokenizer.Decode(ids, special, !special);
  }
  for (const int32_t id : {-1, tokenizer.n_vocab(), std::numeric_limits<int32_t>::min(),
                           std::numeric_limits<int32_t>::max()}) {
    CHECK_FALSE(tokenizer.IsValid(id));
    CHECK_FALSE(tokenizer.IsEog(id));
    CHECK_FALSE(tokenizer.IsControl(id));
    CHECK_THROWS_AS(tokenizer.TokenToPiece(id, true), Error);
    CHECK_THROWS_AS(tokenizer.TokenText(id), Error);
    CHECK_THROWS_AS(tokenizer.Decode(Ids{id}, false, false), Error);
  }
  for (size_t i = 0; i < kNumSpecialTokens; ++i) {
    const int32_t id = tokenizer.vocab().special(static_cast<SpecialToken>(i));
    CHECK((id == kNoToken || tokenizer.IsValid(id)));
  }
  for (const int32_t id : tokenizer.vocab().eog_ids()) CHECK(tokenizer.IsValid(id));
}

struct QuietLog {
  QuietLog() { SetLogLevel(LogLevel::kError); }
  ~QuietLog() { SetLogLevel(LogLevel::kInfo); }
};

}  // namespace

TEST_CASE("Defaults and flags follow the tokenizer model, the pre-tokenizer and the keys") {
  const QuietLog quiet;
  const Tokenizer spm(SmallVocab::Spm().data);
  CHECK(spm.bos() == 1);
  CHECK(spm.eos() == 2);
  CHECK(spm.unknown() == 0);
  CHECK(spm.add_bos());
  CHECK_FALSE(spm.add_eos());
  CHECK(spm.vocab().add_space_prefix());
  CHECK_FALSE(spm.vocab().clean_spaces());
  CHECK(spm.newline() == 3 + '\n');

  const Tokenizer gpt2(SmallVocab::Bpe("gpt-2").data);
  CHECK(gpt2.bos() == 11);
  CHECK(gpt2.eos() == 11);
  CHECK(gpt2.unknown() == kNoToken);
  CHECK_FALSE(gpt2.add_bos());
  CHECK_FALSE(gpt2.vocab().add_space_prefix());
  CHECK(gpt2.vocab().clean_spaces());
  CHECK(gpt2.newline() == '\n');

  CHECK(Tokenizer(SmallVocab::Bpe("llama-bpe").data).add_bos());
  CHECK_FALSE(Tokenizer(SmallVocab::Bpe("qwen2").data).vocab().clean_spaces());
  CHECK(Tokenizer(SmallVocab::Bpe("glm4").data).bos() == kNoToken);

  SmallVocab keys = SmallVocab::Spm();
  keys.SetId("bos_token_id", 5);
  keys.SetId("prefix_token_id", 6);
  keys.SetId("suffix_token_id", 6);
  keys.SetId("fim_suf_token_id", 7);
  keys.data.add_bos = false;
  keys.data.add_eos = true;
  keys.data.add_space_prefix = false;
  keys.data.suppress = {4, -1, 300, 5};
  const Tokenizer by_keys(keys.data);
  CHECK(by_keys.bos() == 5);
  CHECK(by_keys.vocab().special(SpecialToken::kFimPrefix) == 6);
  CHECK(by_keys.vocab().special(SpecialToken::kFimSuffix) == 7);
  CHECK_FALSE(by_keys.add_bos());
  CHECK(by_keys.Encode("", true, false) == Ids{2});
  CHECK(by_keys.vocab().suppressed_ids().size() == 2);
}

TEST_CASE("Special tokens are found by their texts and become control tokens") {
  const QuietLog quiet;
  SmallVocab v = SmallVocab::Bpe("qwen2");
  const int32_t im_end = v.Add("<|im_end|>");
  const int32_t endoftext = v.Add("<|endoftext|>", TokenType::kControl);
  const int32_t pad = v.Add("<|fim_pad|>");
  const int32_t middle = v.Add("<|fim_middle|>", TokenType::kUserDefined);
  const int32_t channel = v.Add("<|channel|>", TokenType::kControl);
  v.SetId("eos_token_id", im_end);
  const Tokenizer t(v.data);
  CHECK(t.eot() == im_end);
  CHECK(t.vocab().special(SpecialToken::kFimPad) == pad);
  CHECK(t.vocab().special(SpecialToken::kFimMiddle) == middle);
  for (const int32_t id : {im_end, endoftext, pad, middle}) CHECK(t.IsControl(id));
  CHECK_FALSE(t.IsControl(channel));
  CHECK(t.TokenToPiece(channel, false) == "<|channel|>");
  const auto eog = t.vocab().eog_ids();
  CHECK(Ids(eog.begin(), eog.end()) == Ids{im_end, endoftext, pad});
}

TEST_CASE("Harmony's end of message and a tool response change what ends a generation") {
  const QuietLog quiet;
  SmallVocab harmony = SmallVocab::Bpe("gpt-4o");
  const int32_t ret = harmony.Add("<|return|>"), call = harmony.Add("<|call|>"),
                end = harmony.Add("<|end|>");
  harmony.SetId("eos_token_id", ret);
  const Tokenizer h(harmony.data);
  CHECK(h.IsEog(ret));
  CHECK(h.IsEog(call));
  CHECK_FALSE(h.IsEog(end));
  CHECK(h.TokenToPiece(end, false) == "<|end|>");

  SmallVocab only_end = SmallVocab::Bpe("gpt-4o");
  const int32_t lone = only_end.Add("<|end|>");
  only_end.SetId("eos_token_id", lone);
  CHECK(Tokenizer(only_end.data).IsEog(lone));

  SmallVocab tools = SmallVocab::Bpe("default");
  const int32_t response = tools.Add("<|tool_response>"),
                close = tools.Add("</s>", TokenType::kControl);
  const Tokenizer t(tools.data);
  CHECK(t.IsEog(response));
  CHECK_FALSE(t.IsEog(close));
  CHECK(t.TokenToPiece(close, false) == "</s>");
}

TEST_CASE("Arrays of the wrong length and absent parts are refused") {
  const QuietLog quiet;
  for (const size_t n : {size_t{1}, size_t{258}, size_t{260}}) {
    SmallVocab scores = SmallVocab::Spm();
    scores.data.scores.resize(n);
    CHECK(CodeOf(scores.data) == ErrorCode::kCorrupt);
    SmallVocab types = SmallVocab::Spm();
    types.data.types.resize(n);
    CHECK(CodeOf(types.data) == ErrorCode::kCorrupt);
  }
  SmallVocab none = SmallVocab::Spm();
  none.data.tokens.clear();
  none.data.types.clear();
  none.data.scores.clear();
  CHECK(CodeOf(none.data) == ErrorCode::kCorrupt);
  SmallVocab nan = SmallVocab::Spm();
  nan.data.scores[7] = std::nanf("");
  CHECK(CodeOf(nan.data) == ErrorCode::kCorrupt);
  SmallVocab merges = SmallVocab::Bpe("gpt-2");
  merges.data.merges.reset();
  CHECK(CodeOf(merges.data) == ErrorCode::kCorrupt);
  SmallVocab pre = SmallVocab::Bpe("no-such-thing\x1b[31m");
  CHECK(CodeOf(pre.data) == ErrorCode::kUnsupported);
  for (const char* model : {"bert", "t5", "", "LLAMA"}) {
    SmallVocab other = SmallVocab::Spm();
    other.data.model = model;
    CHECK(CodeOf(other.data) == ErrorCode::kUnsupported);
  }
  SmallVocab huge = SmallVocab::Spm();
  huge.Add(std::string(kMaxTokenBytes + 1, 'x'));
  CHECK(CodeOf(huge.data) == ErrorCode::kResourceExhausted);
  SmallVocab large = SmallVocab::Spm();
  large.Add(std::string(kMaxTokenBytes, 'x'), TokenType::kUserDefined);
  Exercise(Tokenizer(large.data));
  SmallVocab many = SmallVocab::Bpe("gpt-2");
  many.data.merges->assign(kMaxMerges + 1, "a b");
  CHECK_THROWS_AS(Tokenizer(many.data), Error);
}

TEST_CASE("Special ids and defaults outside the vocabulary are dropped") {
  const QuietLog quiet;
  const char* keys[] = {"bos_token_id",     "eos_token_id",     "eot_token_id",
                        "eom_token_id",     "unknown_token_id", "seperator_token_id",
                        "padding_token_id", "mask_token_id",    "cls_token_id",
                        "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id",
                        "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",
                        "prefix_token_id",  "suffix_token_id",  "middle_token_id"};
  for (const char* key : keys) {
    for (const int64_t id :
         {int64_t{-1}, int64_t{259}, int64_t{1} << 31, int64_t{UINT32_MAX},
          std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
      SmallVocab v = SmallVocab::Spm();
      v.SetId(key, id);
      const Tokenizer t(v.data);
      CHECK(t.bos() == 1);
      CHECK(t.vocab().special(SpecialToken::kFimPad) == kNoToken);
      Exercise(t);
    }
  }
  for (const size_t n : {1, 2, 3}) {
    for (const char* model : {"llama", "gpt2"}) {
      SmallVocab v;
      v.data.model = model;
      v.data.merges.emplace();
      for (size_t i = 0; i < n; ++i) v.Add(std::string(1, static_cast<char>('a' + i)));
      v.data.add_bos = v.data.add_eos = true;
      const Tokenizer t(v.data);
      CHECK(t.IsValid(t.bos()) == (v.data.model == "llama" && n > 1));
      CHECK(t.IsValid(t.eos()) == (v.data.model == "llama" && n > 2));
      Exercise(t);
    }
  }
}

TEST_CASE("Byte tokens that name no byte render as nothing") {
  const QuietLog quiet;
  const char* bad[] = {"<0x-1>", "<0xZZ>",       "<0x>",  "<0x1>",  "<0x100>", "<0x+1>",
                       "<0x 1>", "0x41",         "<0x41", "<0X41>", "<0x4G>",  "<0x00>>",
                       "<>",     "<0x\xC3\xA9>", "-",     "\xFF"};
  for (const char* model : {"llama", "gpt2"}) {
    for (const char* text : bad) {
      SmallVocab v = std::string(model) == "llama" ? SmallVocab::Spm() : SmallVocab::Bpe("default");
      const int32_t id = v.Add(text, TokenType::kByte);
      const Tokenizer t(v.data);
      CHECK(t.TokenToPiece(id, true).empty());
      Exercise(t);
    }
  }
  const Tokenizer t(SmallVocab::Spm().data);
  for (int b = 0; b < 256; ++b)
    CHECK(t.TokenToPiece(3 + b, false) == std::string(1, static_cast<char>(b)));
}

TEST_CASE(
    "Of equal token texts the first counts, empty ones get a name, odd types render as nothing") {
  const QuietLog quiet;
  SmallVocab v = SmallVocab::Spm();
  const int32_t first = v.Add("x"), second = v.Add("x"), empty = v.Add(""), odd = v.Add("odd");
  v.data.types[static_cast<size_t>(odd)] = 77;
  const int32_t unused = v.Add("[PAD0]", TokenType::kUnused);
  const Tokenizer t(v.data);
  CHECK(t.FindToken("x") == first);
  CHECK(t.TokenToPiece(second, false) == "x");
  CHECK(t.TokenText(empty) == Format("[EMPTY_%d]", empty));
  CHECK(t.TokenToPiece(odd, true).empty());
  CHECK(t.TokenToPiece(unused, true).empty());
  CHECK(t.FindToken("nothing") == kNoToken);
  CHECK(t.FindToken("") == kNoToken);
  Exercise(t);
}

TEST_CASE("Malformed merges are skipped, the others keep their order") {
  const QuietLog quiet;
  SmallVocab v = SmallVocab::Bpe("gpt-2");
  for (const char* bad : {"", " ", "a", "ab", " a", "a ", "  ", "a\tb"}) v.RawMerge(bad);
  v.RawMerge(std::string(kMaxTokenBytes, 'a') + " b");
  const int32_t bc = v.Merge("b", "c");
  const int32_t ab = v.Merge("a", "b");
  v.RawMerge("b c");  // again
  v.RawMerge("x y");  // makes no token
  v.RawMerge("xy z");
  v.RawMerge("unknown parts");  // never met
  v.RawMerge("  a");            // left part: a space
  const Tokenizer t(v.data);
  CHECK(t.Encode("abc", false, false) == Ids{'a', bc});
  CHECK(t.Encode("ab", false, false) == Ids{ab});
  // What is no token falls apart into the characters that are.
  CHECK(t.Encode("xyz", false, false) == Ids{'x', 'y', 'z'});
  Exercise(t);

  SmallVocab no_merges = SmallVocab::Bpe("gpt-2");
  CHECK(Tokenizer(no_merges.data).Encode("ab", false, false) == Ids{'a', 'b'});
}

TEST_CASE("Random vocabularies are refused or work") {
  const QuietLog quiet;
  uint32_t state = 99;
  const auto random = [&state](uint32_t n) {
    return ((state = state * 1664525 + 1013904223) >> 8) % n;
  };
  size_t worked = 0;
  for (int round = 0; round < 400; ++round) {
    SmallVocab v;
    v.data.model = random(2) ? "llama" : "gpt2";
    v.data.pre = PreTokenizers()[random(static_cast<uint32_t>(PreTokenizers().size()))].name;
    v.data.merges.emplace();
    const auto text = [&] {
      std::string s;
      for (uint32_t n = random(5); n > 0; --n) {
        s += random(3) ? "ab <|>s/"[random(8)] : static_cast<char>(random(256));
      }
      return s;
    };
    for (uint32_t n = random(40); n > 0; --n) {
      v.Add(text(), static_cast<TokenType>(random(8)), static_cast<float>(random(10)));
    }
    for (uint32_t n = random(40); n > 0; --n) v.RawMerge(text() + (random(8) ? " " : "") + text());
    v.SetId("bos_token_id", random(50));
    v.SetId("fim_pad_token_id", random(50));
    v.data.add_bos = random(2) == 0;
    v.data.add_eos = random(2) == 0;
    v.data.name = random(4) ? "x" : "Phi-3 mini";
    if (v.data.tokens.empty()) {
      CHECK(CodeOf(v.data) == ErrorCode::kCorrupt);
      continue;
    }
    Exercise(Tokenizer(v.data));
    ++worked;
  }
  CHECK(worked > 300);
}

TEST_CASE("A vocabulary is read from a file; keys of the wrong type are refused or ignored") {
  const QuietLog quiet;
  const auto small = [] {
    testing::GgufBuilder b;
    b.Set("tokenizer.ggml.model", "gpt2").Set("tokenizer.ggml.pre", "gpt-2");
    b.SetArray("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab", "<e>"});
    b.SetArray("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    b.SetArray<int32_t>("tokenizer.ggml.token_type", {1, 1, 1, 3});
    b.Set("tokenizer.ggml.eos_token_id", uint32_t{3}).Set("tokenizer.ggml.add_eos_token", true);
    b.SetArray<int32_t>("tokenizer.ggml.suppress_tokens", {1});
    return b;
  };
  const auto open = [](testing::GgufBuilder b) {
    const std::vector<uint8_t> bytes = b.Build();
    return Tokenizer::FromGguf(GgufFile::FromBytes(bytes, "small.gguf"));
  };
  const auto t = open(small());  // the file is gone: the tokenizer keeps nothing of it
  CHECK(t->Encode("ab<e>", true, true) == Ids{2, 3, 3});
  CHECK(t->TokenText(2) == "ab");
  CHECK(t->IsEog(3));
  CHECK(t->vocab().suppressed_ids().size() == 1);

  // Absent, or of another type.
  for (const char* key : {"model", "tokens", "merges"}) {
    const std::string full = std::string("tokenizer.ggml.") + key;
    CHECK_THROWS_AS(open(small().Remove(full)), Error);
    CHECK_THROWS_AS(open(small().Set(full, uint32_t{1})), Error);
  }
  for (const char* key : {"pre", "token_type", "scores", "add_eos_token", "suppress_tokens"}) {
    CHECK_THROWS_AS(open(small().Set(std::string("tokenizer.ggml.") + key, uint32_t{1})), Error);
  }
  for (const size_t n : {0, 1, 3, 5}) {
    CHECK_THROWS_AS(open(small().SetArray("tokenizer.ggml.token_type", std::vector<int32_t>(n, 1))),
                    Error);
    CHECK_THROWS_AS(open(small().SetArray("tokenizer.ggml.scores", std::vector<float>(n, 1))),
                    Error);
  }
  CHECK_THROWS_AS(
      open(small().SetArray("tokenizer.ggml.scores", std::vector<float>(4, std::nanf("")))), Error);
  // Ids that are none are ignored.
  const char* id_key = "tokenizer.ggml.eos_token_id";
  CHECK(open(small().Set(id_key, "3"))->eos() == kNoToken);
  CHECK(open(small().Set(id_key, 0.5f))->eos() == kNoToken);
  CHECK(open(small().Set(id_key, int32_t{-1}))->eos() == kNoToken);
  CHECK(open(small().Set(id_key, UINT64_MAX))->eos() == kNoToken);
  CHECK(open(small().SetArray<uint32_t>(id_key, {3}))->eos() == kNoToken);
  // An embedded end of string is a part of the text.
  CHECK(open(small().SetArray("tokenizer.ggml.tokens",
                              std::vector<std::string>{"a", "b", std::string("a\0b", 3), ""}))
            ->TokenText(2)
            .size() == 3);
}

}  // namespace lutra
