// `lutra logits`: the logits after each prefix of a token sequence, for comparing engines.
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "kernels/base/error.h"

namespace lutra::cli {
namespace {

std::vector<int32_t> ParseTokens(const std::string& text) {
  std::vector<int32_t> ids;
  const char* p = text.data();
  const char* end = p + text.size();
  while (p < end) {
    if (*p == ',' || *p == ' ' || *p == '\n') {
      ++p;
      continue;
    }
    int32_t id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc() || id < 0 ||
        (next < end && *next != ',' && *next != ' ' && *next != '\n')) {
      Fail(ErrorCode::kInvalidArgument, "--tokens: '%s' is no list of token ids like 1,2,3",
           Printable(std::string(p, end), 40).c_str());
    }
    ids.push_back(id);
    p = next;
  }
  if (ids.empty()) Fail(ErrorCode::kInvalidArgument, "--tokens: needs at least one token id");
  return ids;
}

}  // namespace

int RunLogits(int argc, char** argv) {
  CLI::App app(
      "Writes the logits after each prefix of a token sequence: int32 n_tokens, int32 n_vocab, "
      "int32 ids[n_tokens], "
      "float32 logits[n_tokens][n_vocab], little-endian.");
  ModelOptions options;
  options.kv_type = "f16";  // a measurement: the cache's own error must not show
  AddModelOptions(app, &options);
  std::string tokens_text, out_path;
  uint32_t chunk = 0;
  app.add_option("--tokens", tokens_text, "token ids, divided by commas")
      ->required()
      ->type_name("IDS");
  app.add_option("-o,--output", out_path, "file to write")->required()->type_name("FILE");
  app.add_option("--chunk", chunk, "tokens a forward pass takes; 0: all")->type_name("N");
  if (const auto status = ParseArgs(app, argc, argv)) return *status;

  const std::vector<int32_t> ids = ParseTokens(tokens_text);
  const uint32_t n = static_cast<uint32_t>(ids.size());
  if (chunk == 0) chunk = n;
  chunk = std::min({chunk, n, kMaxBatchTokens});
  EngineOptions engine_options;
  engine_options.need_tokenizer = false;
  engine_options.batch_logits = chunk;
  options.batch = chunk;
  if (options.n_ctx == 0) options.n_ctx = n;
  if (n > options.n_ctx)
    Fail(ErrorCode::kInvalidArgument, "%u tokens do not fit a context of %u (-c)", n,
         options.n_ctx);
  const auto engine = LoadEngine(options, engine_options);

  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(out_path.c_str(), "wb"),
                                                            std::fclose);
  if (!out) Fail(ErrorCode::kIo, "%s: cannot open for writing", Printable(out_path, 400).c_str());
  const auto write = [&](const void* data, size_t bytes) {
    if (std::fwrite(data, 1, bytes, out.get()) != bytes)
      Fail(ErrorCode::kIo, "%s: cannot write", Printable(out_path, 400).c_str());
  };
  const int32_t header[2] = {static_cast<int32_t>(n),
                             static_cast<int32_t>(engine->hparams().n_vocab)};
  write(header, sizeof header);
  write(ids.data(), ids.size() * 4);

  const size_t page_bytes = engine->decoder().kv_layout().page_bytes();
  AlignedArray<uint8_t> cache((n + kKvPage - 1) / kKvPage * page_bytes);
  std::vector<uint8_t*> pages;
  for (size_t at = 0; at < cache.size(); at += page_bytes) pages.push_back(cache.data() + at);
  std::vector<BatchToken> batch;
  for (uint32_t begin = 0; begin < n; begin += chunk) {
    batch.clear();
    for (uint32_t i = begin; i < std::min(n, begin + chunk); ++i) {
      batch.push_back({ids[i], static_cast<int32_t>(i), pages.data(), true});
    }
    engine->decoder().Forward(batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto logits = engine->decoder().logits(i);
      write(logits.data(), logits.size_bytes());
    }
  }
  if (std::fflush(out.get()) != 0)
    Fail(ErrorCode::kIo, "%s: cannot write", Printable(out_path, 400).c_str());
  return kExitOk;
}

}  // namespace lutra::cli
