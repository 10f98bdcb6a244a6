// The sequences of one request: submitted together, read together, ended together.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/scheduler.h"

namespace lutra::server {

// Read by one thread; Cancel from any. The scheduler must outlive it.
class Run {
 public:
  // Throws ApiError: 429 if the queue is full, 503 on shutdown; Error as Scheduler::Submit.
  static std::shared_ptr<Run> Start(Scheduler& scheduler, std::vector<SequenceRequest> requests);
  ~Run() { Cancel(); }

  size_t size() const { return streams_.size(); }
  // The next event of any sequence; false if none came in time or all have ended.
  bool Next(size_t* i, SequenceEvent* event, std::chrono::milliseconds timeout);
  bool finished() const { return n_finished_ == streams_.size(); }
  // Prompt tokens of sequence 0 that are computed.
  size_t prompt_done() const { return streams_[0]->prompt_done.load(std::memory_order_relaxed); }
  void Cancel();

 private:
  struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
    uint64_t count = 0;
  };
  std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
  std::vector<std::shared_ptr<TokenStream>> streams_;
  std::vector<bool> ended_;
  size_t n_finished_ = 0, next_ = 0;
};

}  // namespace lutra::server
