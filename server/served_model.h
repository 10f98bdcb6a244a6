// A model that is being served: its engine, scheduler and chat template.
#pragma once

#include <ctime>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "engine/grammar/grammar_constraint.h"
#include "engine/scheduler.h"
#include "models/chat/chat_template.h"

namespace lutra::server {

struct ModelSpec {
  std::string alias;     // "": the file's name without .gguf
  EngineOptions engine;  // batch_logits and kv_tokens 0: chosen to suit the scheduler
  SchedulerOptions scheduler;
  std::string chat_template;  // source that replaces the file's; "": the file's
  SamplingParams sampling;    // defaults of requests
};

// Immutable after construction but for the scheduler, which is thread-safe.
class ServedModel {
 public:
  // Loads. Throws Error as Engine and ChatTemplate do.
  explicit ServedModel(ModelSpec spec);

  const std::string& name() const { return spec_.alias; }
  const Engine& engine() const { return *engine_; }
  const Tokenizer& tokenizer() const { return engine_->tokenizer(); }
  Scheduler& scheduler() { return *scheduler_; }
  const Scheduler& scheduler() const { return *scheduler_; }
  const ChatTemplate& chat_template() const { return template_; }
  const SamplingParams& sampling() const { return spec_.sampling; }
  std::time_t created() const { return created_; }
  uint32_t n_ctx() const { return engine_->n_ctx(); }
  // True if an embedding is the last token's state instead of the mean of all.
  bool pools_last() const { return pools_last_; }
  // Grammars over this vocabulary; the first use takes a moment.
  GrammarCache& grammars() const;
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  ModelSpec spec_;
  std::unique_ptr<Engine> engine_;
  ChatTemplate template_;
  std::unique_ptr<Scheduler> scheduler_;
  std::time_t created_ = std::time(nullptr);
  bool pools_last_ = false;
  mutable std::once_flag grammars_once_;
  mutable std::unique_ptr<GrammarCache> grammars_;
  uint64_t file_bytes_ = 0;
};

// Texts of control tokens that mark thoughts and calls; where a vocabulary has them as tokens, they appear in the text.
std::span<const char* const> FormatMarks();

// The name a model gets without an alias.
std::string DefaultAlias(const std::string& path);

}  // namespace lutra::server
