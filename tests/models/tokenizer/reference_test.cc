// Token ids and texts of real vocabularies, from the shared reference material.
#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/base/utf8.h"
#include "models/gguf.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

struct Reference {
  const char* name;
  std::vector<int32_t> eog;
};

const std::vector<Reference>& References() {
  static const std::vector<Reference> references = {
      {"llama-bpe", {128001, 128008, 128009}},
      {"qwen2", {128247, 151643, 151645, 151662, 151663, 151664}},
      {"llama-spm", {2}},
      {"gpt-2", {50256}},
      {"deepseek-llm", {100001}},
  };
  return references;
}

std::unique_ptr<Tokenizer> Load(const std::string& shared, const std::string& name) {
  return Tokenizer::FromGguf(GgufFile::Open(shared + "/vocabs/ggml-vocab-" + name + ".gguf"));
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    uint8_t byte = 0;
    const char* digits = hex.data() + i;
    REQUIRE(std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2);
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

// Streams `ids`; every chunk must be valid UTF-8.
std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool special) {
  StreamDecoder decoder(tokenizer, special);
  std::string all, chunk;
  for (const int32_t id : ids) {
    chunk.clear();
    decoder.Append(id, &chunk);
    CHECK(Utf8IsValid(chunk));
    CHECK(decoder.held_bytes() < 4);
    all += chunk;
  }
  chunk.clear();
  decoder.Flush(&chunk);
  CHECK(Utf8IsValid(chunk));
  return all + chunk;
}

}  // namespace

TEST_CASE("The published test texts give the published ids") {
  LUTRA_REQUIRE_SHARED(shared);
  const std::string kSeparator = "\n__ggml_vocab_test__\n";
  for (const Reference& reference : References()) {
    CAPTURE(reference.name);
    const auto tokenizer = Load(shared, reference.name);
    const std::string file = shared + "/vocabs/ggml-vocab-" + reference.name + ".gguf";
    const std::string texts = testing::ReadText(file + ".inp");
    std::istringstream expected(testing::ReadText(file + ".out"));
    size_t begin = 0, n_cases = 0;
    for (size_t end; (end = texts.find(kSeparator, begin)) != std::string::npos;
         begin = end + kSeparator.size()) {
      const std::string text = texts.substr(begin, end - begin);
      CAPTURE(text);
      std::string line;
      REQUIRE(std::getline(expected, line));
      std::istringstream numbers(line);
      const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers),
                                     std::istream_iterator<int32_t>()};
      CHECK(tokenizer->Encode(text, false, false) == ids);
      std::string pieces;
      for (const int32_t id : ids) tokenizer->AppendPiece(id, false, &pieces);
      CHECK(Stream(*tokenizer, ids, false) == Utf8Sanitize(pieces));
      ++n_cases;
    }
    CHECK(n_cases == 46);
  }
}

TEST_CASE("The reference's ids, texts and pieces are met, and streams are whole characters") {
  LUTRA_REQUIRE_SHARED(shared);
  for (const Reference& reference : References()) {
    CAPTURE(reference.name);
    const auto tokenizer = Load(shared, reference.name);
    std::istringstream lines(
        testing::ReadText(shared + "/vocabs/extra-" + reference.name + ".jsonl"));
    size_t n_cases = 0;
    for (std::string line; std::getline(lines, line); ++n_cases) {
      CAPTURE(line);
      const nlohmann::json row = nlohmann::json::parse(line);
      const auto ids = row["ids"].get<std::vector<int32_t>>();
      const std::string text = FromHex(row["text"]);
      CHECK(tokenizer->Encode(text, row["add_special"].get<bool>(),
                              row["parse_special"].get<bool>()) == ids);
      CHECK(tokenizer->Decode(ids, true, false) == FromHex(row["detok"]));
      CHECK(tokenizer->Decode(ids, false, true) == FromHex(row["detok_special"]));
      std::string pieces;
      for (const int32_t id : ids) tokenizer->AppendPiece(id, true, &pieces);
      CHECK(pieces == FromHex(row["pieces"]));
      CHECK(Stream(*tokenizer, ids, true) == Utf8Sanitize(pieces));
    }
    CHECK(n_cases == 211);
  }
}

TEST_CASE("The tokens that end a generation are those of the reference") {
  LUTRA_REQUIRE_SHARED(shared);
  for (const Reference& reference : References()) {
    CAPTURE(reference.name);
    const auto tokenizer = Load(shared, reference.name);
    const auto eog = tokenizer->vocab().eog_ids();
    CHECK(std::vector<int32_t>(eog.begin(), eog.end()) == reference.eog);
    for (const int32_t id : reference.eog) CHECK(tokenizer->IsEog(id));
    CHECK_FALSE(tokenizer->IsEog(5));
  }
}

TEST_CASE("Byte-level vocabularies give every valid text back") {
  LUTRA_REQUIRE_SHARED(shared);
  for (const Reference& reference : References()) {
    CAPTURE(reference.name);
    const auto tokenizer = Load(shared, reference.name);
    uint32_t state = 12345;
    const auto random = [&state](uint32_t n) {
      return ((state = state * 1664525 + 1013904223) >> 8) % n;
    };
    for (int round = 0; round < 300; ++round) {
      std::string text;
      for (uint32_t n = random(60); n > 0; --n) {
        const uint32_t kind = random(6);
        uint32_t c = kind < 3    ? random(128)
                     : kind == 3 ? random(0x800)
                     : kind == 4 ? random(0xD800)
                                 : random(0x110000);
        if (c >= 0xD800 && c < 0xE000) c = ' ';
        Utf8Append(c, &text);
      }
      CAPTURE(text);
      const std::vector<int32_t> ids = tokenizer->Encode(text, false, false);
      // Whole-sequence decoding may clean spaces: the pieces are the text.
      std::string pieces;
      for (const int32_t id : ids) tokenizer->AppendPiece(id, false, &pieces);
      if (tokenizer->vocab().is_spm()) {
        if (!text.empty()) CHECK(pieces.substr(1) == text);
      } else {
        CHECK(pieces == text);
        if (!tokenizer->vocab().clean_spaces()) CHECK(tokenizer->Decode(ids, false, false) == text);
      }
    }
  }
}

}  // namespace lutra
