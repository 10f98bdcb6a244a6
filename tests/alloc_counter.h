// Counts the memory that operator new has handed out. A test program that links
// tests/alloc_counter.cc can ask.
#pragma once

#include <cstddef>

namespace lutra::testing {

// Measures from construction on. Counts all threads of the program; one at a time.
class AllocWatch {
 public:
  AllocWatch();
  // The most bytes that lived at once, above what lived at construction.
  size_t peak_bytes() const;
  // Number of allocations so far.
  size_t allocations() const;

 private:
  size_t start_bytes_;
  size_t start_allocations_;
};

}  // namespace lutra::testing
