#include "engine/token_stream.h"

namespace lutra {

bool TokenStream::Next(SequenceEvent* event, std::chrono::milliseconds timeout) {
  bool wake;
  {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, timeout, [&] { return !events_.empty(); })) return false;
    wake = events_.size() >= kMaxEvents;
    *event = std::move(events_.front());
    events_.pop_front();
  }
  if (wake && waker_) waker_();
  return true;
}

void TokenStream::Cancel() {
  if (!cancelled_.exchange(true) && waker_) waker_();
}

void TokenStream::Push(SequenceEvent event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  arrived_.notify_one();
  if (notify_) notify_();
}

bool TokenStream::full() const {
  const std::lock_guard lock(mutex_);
  return events_.size() >= kMaxEvents;
}

}  // namespace lutra
