// Counts heap allocations of the test program (operator new is replaced in no_alloc_test.cc).
#pragma once

#include <cstddef>

namespace lutra::testing {

// Allocations through operator new by this thread since it started.
size_t AllocationCount();

}  // namespace lutra::testing
