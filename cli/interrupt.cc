#include "cli/interrupt.h"

#include <signal.h>

namespace lutra::cli {
namespace {

std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void OnSignal(int) { g_interrupted = true; }

}  // namespace

std::atomic<bool>& InterruptFlag() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_handler = OnSignal;
    sigaction(SIGINT, &action, nullptr);
    return true;
  }();
  (void)installed;
  return g_interrupted;
}

}  // namespace lutra::cli
