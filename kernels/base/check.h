// CHECK (always on) and DCHECK (debug builds) are for our own mistakes: a failed one aborts with file and line.
#pragma once

#include <cstdio>
#include <cstdlib>

#define LUTRA_CHECK(condition)                                                           \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#ifdef NDEBUG
#define LUTRA_DCHECK(condition) \
  do {                          \
    if (false && (condition)) { \
    }                           \
  } while (false)
#else
#define LUTRA_DCHECK(condition) LUTRA_CHECK(condition)
#endif
