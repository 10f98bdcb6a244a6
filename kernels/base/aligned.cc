#include "kernels/base/aligned.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lutra {

void* AllocateHuge(size_t bytes) {
  void* p = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
#if defined(__linux__)
  // Advice: refused where the system has no huge pages, and all is well without.
  if (p != nullptr) (void)madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return p;
}

}  // namespace lutra
