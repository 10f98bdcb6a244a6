#include "server/served_model.h"

#include <algorithm>
#include <filesystem>

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra::server {
namespace {

// Rows of logits beside one a slot: prompts whose log probabilities are asked for are scored by so many at a time.
constexpr uint32_t kScoringRows = 32;
constexpr int64_t kPoolingLast = 3;  // fixed by GGUF, key {arch}.pooling_type

std::unique_ptr<Engine> Load(ModelSpec* spec) {
  if (spec->alias.empty()) spec->alias = DefaultAlias(spec->engine.model_path);
  EngineOptions& e = spec->engine;
  e.batch_logits = std::max<uint32_t>(
      e.batch_logits, static_cast<uint32_t>(spec->scheduler.max_sequences) + kScoringRows);
  e.batch_tokens =
      std::max<uint32_t>(e.batch_tokens, static_cast<uint32_t>(spec->scheduler.max_sequences));
  return std::make_unique<Engine>(e);
}

std::string SpecialText(const Tokenizer& tokenizer, int32_t id) {
  return tokenizer.IsValid(id) ? std::string(tokenizer.TokenText(id)) : "";
}

}  // namespace

std::string DefaultAlias(const std::string& path) {
  return std::filesystem::path(path).stem().string();
}

std::span<const char* const> FormatMarks() {
  static constexpr const char* kMarks[] = {"<tool_call>", "</tool_call>", "[TOOL_CALLS]",
                                           "[ARGS]",      "[CALL_ID]",    "<|python_tag|>",
                                           "<think>",     "</think>"};
  return kMarks;
}

GrammarCache& ServedModel::grammars() const {
  std::call_once(grammars_once_, [&] {
    std::vector<int32_t> marks;
    for (const char* text : FormatMarks()) {
      if (const int32_t id = tokenizer().FindToken(text); id != kNoToken) marks.push_back(id);
    }
    grammars_ = std::make_unique<GrammarCache>(
        std::make_shared<TokenTree>(tokenizer(), engine_->hparams().n_vocab, marks));
  });
  return *grammars_;
}

ServedModel::ServedModel(ModelSpec spec)
    : spec_(std::move(spec)),
      engine_(Load(&spec_)),
      template_(ChatTemplate::FromGguf(
          engine_->model().file(), SpecialText(tokenizer(), tokenizer().bos()),
          SpecialText(tokenizer(), tokenizer().eos()), spec_.chat_template)) {
  const GgufFile& file = engine_->model().file();
  if (const GgufValue* v = file.Find(std::string(engine_->hparams().arch->name) + ".pooling_type");
      v != nullptr && !v->is_array()) {
    pools_last_ = v->AsInt() == kPoolingLast;
  }
  std::error_code ignored;
  file_bytes_ = std::filesystem::file_size(spec_.engine.model_path, ignored);
  if (ignored) file_bytes_ = 0;
  scheduler_ = std::make_unique<Scheduler>(*engine_, spec_.scheduler);
}

}  // namespace lutra::server
