// One sequence on its way through the scheduler. Nothing here is for users of Scheduler.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine/stop.h"
#include "engine/token_stream.h"
#include "engine/tokenizer_texts.h"

namespace lutra {

// Belongs to the engine thread once admitted; a step may call Draw of different sequences at once.
class Sequence {
 public:
  using Clock = std::chrono::steady_clock;

  // Throws Error as Scheduler::Submit says.
  Sequence(const Engine& engine, SequenceRequest request);

  // Of the logits after the last token: draws the next one and turns it into text. Never throws: an error ends the sequence.
  void Draw(std::span<const float> logits);
  // Of a prompt position's logits: the probability of the token that follows it.
  void AddPromptLogprob(std::span<const float> logits, size_t pos);
  void AddHidden(std::span<const float> hidden);
  void FinishEmbedding();
  // Ends it; the last event is then ready.
  void Finish(FinishReason reason);
  void Fail(std::exception_ptr error);
  // Hands what is ready to the stream.
  void Flush();

  // Tokens without keys and values.
  size_t pending() const { return tokens.size() - n_kv; }
  bool in_prompt() const { return n_kv + 1 < tokens.size(); }

  SequenceRequest request;
  std::shared_ptr<TokenStream> stream = std::make_shared<TokenStream>();
  uint64_t id = 0;
  std::vector<int32_t> tokens;  // prompt, then what was generated
  size_t n_kv = 0;              // of which keys and values are there
  std::vector<int> pages;
  std::vector<uint8_t*> page_data;    // same order; never moves while it runs
  std::shared_ptr<bool> leader_done;  // set by the first of a group when its prompt is computed
  bool leads = false;
  size_t slot = 0;
  bool counted_cache = false;
  bool finished = false;
  bool failed = false;
  SequenceStats stats;
  Clock::time_point submitted, admitted, first_token;
  size_t step_tokens = 0;                                                 // planned for this step
  size_t first_logits = 0, n_logits = 0, first_hidden = 0, n_hidden = 0;  // where its rows lie

 private:
  void Append(int32_t token, std::span<const float> logits);
  void TakeText(std::string_view bytes);
  std::string Bytes(int32_t token) const;
  LogprobEntry Entry(std::span<const float> logits, int32_t token) const;

  const Engine& engine_;
  TokenizerTexts texts_;
  std::unique_ptr<Sampler> sampler_;
  StreamDecoder decoder_;
  StopFilter stops_;
  std::string pieces_;
  SequenceEvent event_;             // what the next Flush hands over
  std::vector<LogprobEntry> held_;  // of tokens whose text is held back
  size_t held_end_ = 0;             // bytes of text that all tokens so far spell
  std::vector<size_t> held_begin_;  // where the text of each held token begins
  size_t shown_ = 0;                // bytes of text handed over
  std::vector<double> hidden_sum_;
};

}  // namespace lutra
