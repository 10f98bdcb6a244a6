// What is asked of the scheduler, and the bounded channel through which one sequence's text comes back.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "engine/generate.h"
#include "engine/logprobs.h"
#include "engine/sampling_params.h"

namespace lutra {

struct SequenceRequest {
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  size_t max_tokens = SIZE_MAX;  // at most so many, perhaps none; the context is a limit too
  std::vector<std::string> stop;
  bool special = false;  // control tokens appear in the text
  std::vector<int32_t>
      rendered;           // control tokens that appear in the text anyway (marks of a chat format)
  int top_logprobs = -1;  // -1: no log probabilities; else those of the token and of so many others
  bool prompt_logprobs = false;  // the prompt's tokens too
  bool embed = false;            // no text: the mean (or last) hidden state of the prompt
  bool embed_last = false;
  std::string scope;                            // prefixes are shared within a scope only
  bool use_prefixes = true;                     // of earlier sequences, and keeps this one's
  std::string client;                           // who asks: waiting clients take turns
  std::shared_ptr<TokenConstraint> constraint;  // shared only with the scheduler
  std::function<void()> on_event;  // called on the engine thread after each event; must be quick
};

struct LogprobEntry {
  struct Top {
    int32_t id;
    float logprob;
    std::string bytes;
  };
  TokenLogprob token;
  std::vector<Top> top;  // best first
  std::string bytes;     // the token as it stands in running text
};

struct SequenceStats {
  size_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  size_t forced_tokens = 0;  // of the completion: those a grammar left no choice about
  double queue_seconds = 0, prompt_seconds = 0, decode_seconds = 0;
  uint32_t seed = 0;
};

// One piece of a sequence's output.
struct SequenceEvent {
  std::string text;                    // whole UTF-8 characters
  std::vector<LogprobEntry> logprobs;  // of the tokens whose text this is
  std::vector<LogprobEntry>
      prompt_logprobs;           // once, with the first event; the first entry has no logprob (NaN)
  std::vector<float> embedding;  // once
  uint32_t n_tokens = 0;         // that this event stands for
  bool finished = false;         // the last event:
  FinishReason finish = FinishReason::kStop;
  std::string stop_text;     // the stop string that ended it, if one did
  std::exception_ptr error;  // what ended it, if an error did
  SequenceStats stats;
};

// One producer (the scheduler), one consumer. Bounded: a sequence whose consumer is slow is not computed on.
class TokenStream {
 public:
  // Consumer. False if nothing came within the time. After the event that is `finished` no other comes.
  bool Next(SequenceEvent* event, std::chrono::milliseconds timeout);
  // Consumer, or anybody: ends the sequence within one step.
  void Cancel();

  // Producer.
  void Push(SequenceEvent event);
  bool full() const;
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  // Called (on the caller's thread) by Cancel and when a full stream has room again. Set before the producer starts.
  void SetWaker(std::function<void()> waker) { waker_ = std::move(waker); }
  void SetNotify(std::function<void()> notify) { notify_ = std::move(notify); }
  // Fed with the prompt's progress: tokens computed or found so far.
  std::atomic<size_t> prompt_done{0};

 private:
  static constexpr size_t kMaxEvents = 256;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<SequenceEvent> events_;
  std::atomic<bool> cancelled_{false};
  std::function<void()> waker_, notify_;
};

}  // namespace lutra
