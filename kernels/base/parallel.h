// Threads. The only code that includes oneTBB.
//
// A ThreadPool runs *regions*: inside one, worker threads stay near (spinning a few microseconds, then sleeping on a futex),
// so that each For() inside costs well under a microsecond to start. A For() is a counter of chunks: whoever is there takes the
// next one. Nobody ever waits for a worker that has not arrived (oneTBB never promises any), so a busy machine or a pool larger
// than the machine costs speed, not progress.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace lutra {

// A callable by reference: no allocation, valid while the callable lives.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT: implicit on purpose
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  // n_threads >= 1 includes the calling thread. Throws Error(kInvalidArgument) outside [1, kMaxThreads].
  static constexpr int kMaxThreads = 1024;
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const;

  // Runs body() on the calling thread while workers attend. One region at a time per pool; not nested. What body throws is
  // thrown on after the workers have left.
  void Region(FunctionRef<void()> body);

  // Calls body(i) for every i in [0, n), each once, on any of the threads; returns when all are done. Inside a region the
  // workers help; outside one, everything runs on the calling thread. Called by the region's thread only, not nested. body must
  // not throw. Writes before For() are seen by all calls, writes of all calls after it.
  void For(size_t n, FunctionRef<void(size_t)> body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lutra
