// One at a time, in the order of arrival: the models of a process take turns on the cores, a step each, so that their thread teams do not
// compete. Uncontended it costs two atomic operations; who waits sleeps.
#pragma once

#include <atomic>
#include <cstdint>

namespace lutra {

// Thread-safe.
class Turns {
 public:
  // For who has a turn: others wait for theirs.
  bool Contended() const { return waiting() != 0; }
  // How many.
  uint32_t waiting() const { return next_.load() - serving_.load() - 1; }

 private:
  friend class Turn;
  std::atomic<uint32_t> next_{0}, serving_{0};
};

// From the constructor's return to the destructor nobody else has a turn. Not recursive.
class Turn {
 public:
  explicit Turn(Turns& turns) : turns_(turns) {
    const uint32_t mine = turns.next_.fetch_add(1);
    for (uint32_t now = turns.serving_.load(); now != mine; now = turns.serving_.load()) {
      waited_ = true;
      turns.serving_.wait(now);
    }
  }
  ~Turn() {
    turns_.serving_.fetch_add(1);
    if (turns_.next_.load() != turns_.serving_.load()) turns_.serving_.notify_all();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  bool waited() const { return waited_; }

 private:
  Turns& turns_;
  bool waited_ = false;
};

}  // namespace lutra
