#include "kernels/base/parallel.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>

#include <atomic>
#include <cstdint>

#include "kernels/base/error.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#define LUTRA_PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define LUTRA_PAUSE() asm volatile("yield")
#else
#define LUTRA_PAUSE() ((void)0)
#endif

namespace lutra {
namespace {

// About 3 us of pauses (140 cycles each on recent x86) before a futex sleep: longer than the serial gaps between phases,
// short enough that a competing process gets the core.
constexpr int kSpins = 64;
constexpr int kEagerSpins = 256;  // first without pause: the common case is a wait of under 1 us

// Waits until ready() or `word` differs from `seen`; spins, then sleeps on `word`.
template <class Ready>
void SpinThenSleep(std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers, uint32_t seen,
                   Ready ready) {
  for (int i = 0; i < kEagerSpins; ++i) {
    if (ready()) return;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return;
    LUTRA_PAUSE();
  }
  sleepers.fetch_add(1);
  while (!ready() && word.load() == seen) word.wait(seen);
  sleepers.fetch_sub(1);
}

}  // namespace

// A phase is published by raising `epoch`; workers enter it by raising `inside` and then looking whether it is still open.
// The caller closes it once the chunks are taken and waits until `inside` is 0, so a late worker finds it closed and nobody
// can see a job that has been replaced. All orderings are the default (sequentially consistent): the entry is a
// store-then-load handshake on both sides.
struct ThreadPool::State {
  explicit State(int n) : n_threads(n), arena(n) {}

  const int n_threads;
  tbb::task_arena arena;
  bool in_region = false;

  alignas(64) std::atomic<uint32_t> epoch{0};
  std::atomic<uint32_t> sleeping_workers{0};
  std::atomic<bool> open{false};
  std::atomic<bool> stop{false};
  const FunctionRef<void(size_t)>* job = nullptr;
  size_t n_chunks = 0;
  alignas(64) std::atomic<size_t> next{0};
  alignas(64) std::atomic<uint32_t> inside{0};
  std::atomic<uint32_t> sleeping_caller{0};
  std::atomic<uint32_t> left{0};

  void TakeChunks() {
    const FunctionRef<void(size_t)>& body = *job;
    const size_t n = n_chunks;
    for (size_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) body(i);
  }

  void Work() {
    uint32_t seen = epoch.load() - 1;  // a phase may be open already
    for (;;) {
      SpinThenSleep(epoch, sleeping_workers, seen,
                    [&] { return epoch.load() != seen || stop.load(); });
      if (stop.load()) return;
      seen = epoch.load();
      inside.fetch_add(1);
      if (open.load()) TakeChunks();
      if (inside.fetch_sub(1) == 1 && sleeping_caller.load() != 0) inside.notify_all();
    }
  }

  // What oneTBB runs on a worker. The address goes through an atomic, and `left` comes back, so that tools which cannot look into
  // oneTBB see what happens before what (ThreadSanitizer).
  class Attendance {
   public:
    explicit Attendance(State* state) { state_.store(state); }
    Attendance(const Attendance& other) : Attendance(other.state_.load()) {}
    void operator()() const {
      State* const state = state_.load();
      state->Work();
      state->left.fetch_add(1);
    }

   private:
    std::atomic<State*> state_{nullptr};
  };

  void WakeWorkers() {
    epoch.fetch_add(1);
    if (sleeping_workers.load() != 0) epoch.notify_all();
  }

  void WaitForWorkers() {
    for (uint32_t n = inside.load(); n != 0; n = inside.load()) {
      SpinThenSleep(inside, sleeping_caller, n, [&] { return inside.load() == 0; });
    }
  }
};

ThreadPool::ThreadPool(int n_threads) {
  if (n_threads < 1 || n_threads > kMaxThreads) {
    Fail(ErrorCode::kInvalidArgument, "threads: %d is out of range; it takes 1 to %d", n_threads,
         kMaxThreads);
  }
  state_ = std::make_unique<State>(n_threads);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::n_threads() const { return state_->n_threads; }

void ThreadPool::Region(FunctionRef<void()> body) {
  State& s = *state_;
  if (s.n_threads == 1) {
    body();
    return;
  }
  // More threads than the machine has cores must still be possible (tests, comparisons).
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                                  static_cast<size_t>(s.n_threads));
  s.arena.execute([&] {
    tbb::task_group workers;
    s.stop = false;
    s.in_region = true;
    for (int i = 1; i < s.n_threads; ++i) workers.run(State::Attendance(&s));
    const auto leave = [&] {
      s.in_region = false;
      s.stop = true;
      s.WakeWorkers();
      workers.wait();
      (void)s.left.load();
    };
    try {
      body();
    } catch (...) {
      leave();
      throw;
    }
    leave();
  });
}

void ThreadPool::For(size_t n, FunctionRef<void(size_t)> body) {
  State& s = *state_;
  if (!s.in_region || n <= 1) {
    for (size_t i = 0; i < n; ++i) body(i);
    return;
  }
  s.job = &body;
  s.n_chunks = n;
  s.next = 0;
  s.open = true;
  s.WakeWorkers();
  s.TakeChunks();
  s.open = false;
  s.WaitForWorkers();
}

}  // namespace lutra
