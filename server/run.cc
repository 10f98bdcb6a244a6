#include "server/run.h"

#include "server/api_error.h"

namespace lutra::server {

std::shared_ptr<Run> Run::Start(Scheduler& scheduler, std::vector<SequenceRequest> requests) {
  auto run = std::make_shared<Run>();
  for (SequenceRequest& r : requests) {
    r.on_event = [bell = run->bell_] {
      {
        const std::lock_guard lock(bell->mutex);
        ++bell->count;
      }
      bell->rung.notify_one();
    };
  }
  const size_t n = requests.size();
  run->streams_ = scheduler.Submit(std::move(requests));
  if (run->streams_.empty()) {
    if (!scheduler.accepting())
      throw ApiError(503, "the server is shutting down", "", "shutting_down");
    throw ApiError(429,
                   Format("%zu more sequences do not fit: %zu are computed at a time and %zu may "
                          "wait; try again later",
                          n, scheduler.options().max_sequences, scheduler.options().max_queued),
                   "", "queue_full");
  }
  run->ended_.resize(n);
  return run;
}

bool Run::Next(size_t* i, SequenceEvent* event, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!finished()) {
    uint64_t seen;
    {
      const std::lock_guard lock(bell_->mutex);
      seen = bell_->count;
    }
    for (size_t k = 0; k < streams_.size(); ++k) {
      const size_t at = (next_ + k) % streams_.size();
      if (ended_[at] || !streams_[at]->Next(event, std::chrono::milliseconds(0))) continue;
      next_ = at + 1;
      *i = at;
      if (event->finished) {
        ended_[at] = true;
        ++n_finished_;
      }
      return true;
    }
    std::unique_lock lock(bell_->mutex);
    if (!bell_->rung.wait_until(lock, deadline, [&] { return bell_->count != seen; })) return false;
  }
  return false;
}

void Run::Cancel() {
  for (const auto& s : streams_) s->Cancel();
}

}  // namespace lutra::server
