// `lutra tokenize`: text to token ids and back.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/args.h"
#include "cli/command.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "models/gguf.h"
#include "models/tokenizer/tokenizer.h"

namespace lutra::cli {
namespace {

using Ids = std::vector<int32_t>;

// All bytes of a file, or of standard input for "-". Throws Error(kNotFound, kIo,
// kResourceExhausted).
std::string ReadInput(const std::string& path) {
  const bool is_stdin = path == "-";
  const auto close = [](std::FILE* f) {
    if (f != stdin) std::fclose(f);
  };
  const std::unique_ptr<std::FILE, decltype(close)> file(
      is_stdin ? stdin : std::fopen(path.c_str(), "rb"), close);
  if (file == nullptr) {
    const int error = errno;
    Fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "%s: %s", Printable(path).c_str(),
         std::strerror(error));
  }
  std::string text;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof(buffer), file.get())) {
    text.append(buffer, n);
    if (text.size() > kMaxTextBytes) {
      Fail(ErrorCode::kResourceExhausted,
           "%s: more than %zu bytes (kMaxTextBytes); cut the text into parts",
           is_stdin ? "standard input" : Printable(path).c_str(), kMaxTextBytes);
    }
  }
  if (std::ferror(file.get())) {
    Fail(ErrorCode::kIo, "%s: %s", is_stdin ? "standard input" : Printable(path).c_str(),
         std::strerror(errno));
  }
  return text;
}

// Numbers between white space, commas and brackets: what --ids and --ids --json print.
Ids ParseIds(std::string_view text) {
  Ids ids;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    if (std::string_view(" \t\r\n,[]").find(*p) != std::string_view::npos) {
      ++p;
      continue;
    }
    int32_t id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc()) {
      Fail(ErrorCode::kInvalidArgument,
           "byte %td of the ids: '%s' is no token id; give numbers, as --ids prints them",
           p - text.data(),
           Printable(std::string_view(p, static_cast<size_t>(end - p)), 20).c_str());
    }
    ids.push_back(id);
    p = next;
  }
  return ids;
}

void Write(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += Format("%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
  return hex;
}

void PrintIds(const Ids& ids) {
  std::string line;
  for (const int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
  Write(line + "\n");
}

void PrintTable(const Tokenizer& tokenizer, const Ids& ids) {
  std::string piece;
  for (const int32_t id : ids) {
    piece.clear();
    tokenizer.AppendPiece(id, true, &piece);
    Write(Format("%7d  ", id) + "'" + Printable(piece, kMaxTokenBytes) + "'\n");
  }
  Write(Format("%zu %s\n", ids.size(), ids.size() == 1 ? "token" : "tokens"));
}

// {"count": 2, "tokens": [{"id": 1, "piece": "a"}, {"id": 2, "bytes": "e282"}]}: a piece that is no
// valid UTF-8 on its own is given as hexadecimal bytes instead.
void PrintJson(const Tokenizer& tokenizer, const Ids& ids) {
  nlohmann::json tokens = nlohmann::json::array();
  for (const int32_t id : ids) {
    const std::string piece = tokenizer.TokenToPiece(id, true);
    nlohmann::json token = {{"id", id}};
    if (Utf8IsValid(piece)) {
      token["piece"] = piece;
    } else {
      token["bytes"] = Hex(piece);
    }
    tokens.push_back(std::move(token));
  }
  Write(nlohmann::json{{"count", ids.size()}, {"tokens", std::move(tokens)}}.dump() + "\n");
}

}  // namespace

int RunTokenize(int argc, char** argv) {
  CLI::App app("Turns text into the token ids of a model's vocabulary, or ids into text.");
  std::string model, file = "-";
  std::optional<std::string> text;
  bool only_ids = false, special = false, no_bos = false, detokenize = false, json = false;
  app.add_option("-m,--model", model, "GGUF file; one with a vocabulary alone will do")->required();
  auto* text_option =
      app.add_option("text", text, "Text; without it and -f, standard input is read");
  app.add_option("-f,--file", file, "Read the text from a file ('-': standard input)")
      ->excludes(text_option);
  auto* ids_option = app.add_flag("--ids", only_ids, "Print the ids alone, in one line");
  app.add_flag("--special", special,
               "Recognise special tokens in the text; with --detokenize: print them instead of "
               "leaving them out");
  auto* bos_option = app.add_flag("--no-bos", no_bos,
                                  "Add no BOS and EOS token, even if the vocabulary asks for it");
  app.add_flag("--detokenize", detokenize,
               "Take token ids (numbers between blanks or commas) and print their text")
      ->excludes(ids_option)
      ->excludes(bos_option);
  app.add_flag(
      "--json", json,
      "Print JSON: {count, tokens: [{id, piece}]}, with --ids [id, ...], with --detokenize {text}");
  if (const auto status = ParseArgs(app, argc, argv)) return *status;

  const auto tokenizer = Tokenizer::FromGguf(GgufFile::Open(model));
  const std::string input = text ? *text : ReadInput(file);
  if (detokenize) {
    const std::string decoded = tokenizer->Decode(ParseIds(input), !special, special);
    if (json) {
      Write(nlohmann::json{{"text", Utf8Sanitize(decoded)}}.dump() + "\n");
    } else {
      Write(decoded);  // the bytes as they are: a line end is added for eyes alone
      if (isatty(STDOUT_FILENO)) Write("\n");
    }
    return FinishOutput(kExitOk);
  }
  const Ids ids = tokenizer->Encode(input, !no_bos, special);
  if (only_ids && json) {
    Write(nlohmann::json(ids).dump() + "\n");
  } else if (only_ids) {
    PrintIds(ids);
  } else if (json) {
    PrintJson(*tokenizer, ids);
  } else {
    PrintTable(*tokenizer, ids);
  }
  return FinishOutput(kExitOk);
}

}  // namespace lutra::cli
