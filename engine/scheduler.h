// Continuous batching: one thread owns the model's forward pass; sequences join and leave at any step.
//
// A step is one forward pass over the next token of every running sequence and a slice of the prompts that wait, the slice
// sized by time so that running sequences keep their rhythm. All sequences share one pool of KV pages and one tree of known
// prefixes. Since results depend on nothing but a sequence's tokens, neither company nor the cache nor being interrupted for
// lack of memory (the sequence is then computed again) changes a bit of any text.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_pool.h"
#include "engine/token_stream.h"

namespace lutra {

struct SchedulerOptions {
  size_t max_sequences = 4;       // computed at the same time
  size_t max_queued = 64;         // waiting beside them
  double slice_seconds = 0.1;     // of prompt computing in a step, while other sequences run
  double prefix_cache_share = 1;  // of the KV pages that prefixes of finished sequences may keep
};

struct SlotInfo {
  bool busy = false;
  uint64_t id = 0;  // of the sequence
  size_t prompt_tokens = 0, cached_tokens = 0, prompt_done = 0, generated = 0;
};

struct SchedulerStats {
  uint64_t requests = 0, finished = 0, cancelled = 0, failed = 0, preemptions = 0, steps = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0, computed_prompt_tokens = 0, generated_tokens = 0,
           forced_tokens = 0;
  double busy_seconds = 0, prompt_seconds = 0,
         decode_seconds = 0;  // of steps in all, with and without prompt slices
  size_t running = 0, queued = 0;
  size_t kv_pages = 0, kv_pages_used = 0, kv_pages_cached = 0;
};

class Sequence;

// Owns the engine's decoder while it lives: nothing else may run forward passes. Public functions may be called from any thread.
class Scheduler {
 public:
  Scheduler(Engine& engine, const SchedulerOptions& options);
  // Ends all sequences as cancelled.
  ~Scheduler();

  // Queues the requests of one client together, or none of them: an empty result if the queue is full or the scheduler is
  // shutting down. Several requests with the same prompt wait for the first to compute it. Throws Error: kInvalidArgument for an
  // empty prompt, a token outside the vocabulary or parameters out of range, kResourceExhausted for a prompt longer than the
  // context.
  std::vector<std::shared_ptr<TokenStream>> Submit(std::vector<SequenceRequest> requests);

  // Refuses what comes from now on; true if all work ended within the time.
  bool Drain(std::chrono::milliseconds timeout);
  // Refuses what comes from now on and ends everything within one step (kCancelled).
  void CancelAll();
  bool accepting() const;

  SchedulerStats stats() const;
  std::vector<SlotInfo> slots() const;
  // Forgets all known prefixes that nobody uses.
  void ClearPrefixCache();

  const Engine& engine() const { return engine_; }
  const SchedulerOptions& options() const { return options_; }

 private:
  void Run();
  bool Cancelled(const Sequence& s) const;
  void Admit(std::unique_lock<std::mutex>& lock);
  bool Step();
  void ReusePrefix(Sequence& s);
  bool Plan();
  bool EnsurePages(Sequence& s, size_t n_tokens);
  void Preempt(Sequence& s);
  void Retire(size_t i);
  void Deliver();
  void FailAll(std::exception_ptr error);
  void UpdateShared();
  size_t SliceTokens(bool others_run) const;

  Engine& engine_;
  const SchedulerOptions options_;
  KvPool pool_;
  PrefixCache prefixes_;

  // The engine thread's.
  std::vector<std::unique_ptr<Sequence>> running_;  // in the order they were admitted
  std::vector<BatchToken> batch_;
  std::vector<Sequence*> planned_;   // sequences of batch_, in its order
  std::vector<Sequence*> sampling_;  // of which a token is drawn
  double tokens_per_second_ = 0;     // measured, of steps with prompt slices

  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable idle_;
  bool stopping_ = false, draining_ = false, clear_prefixes_ = false, woken_ = false;
  std::atomic<bool> cancelling_{false};
  std::map<std::string, std::deque<std::unique_ptr<Sequence>>> queue_;  // by client
  std::string last_client_;
  size_t n_queued_ = 0;
  uint64_t next_id_ = 1;
  SchedulerStats stats_;
  std::vector<SlotInfo> slots_;
  std::thread thread_;
};

}  // namespace lutra
