// Ctrl-C: a flag that running work looks at.
#pragma once

#include <atomic>

namespace lutra::cli {

// Installs a SIGINT handler (without SA_RESTART, so that waiting reads return) that sets the flag. Once a process.
std::atomic<bool>& InterruptFlag();

}  // namespace lutra::cli
