// Counts every allocation of the program: malloc and its kin, and so operator new and what
// libraries take.
#pragma once

#include <cstddef>

namespace lutra::testing {

// By all threads, since the program started.
size_t MallocCount();

}  // namespace lutra::testing
