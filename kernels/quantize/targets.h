// The SIMD targets of the encoders: SSE2, AVX2, AVX3 on x86; fewer than those of the products, for the sake of build time. All
// give the same bytes. Include before any Highway header.
#pragma once

#define LUTRA_SKIPPED_TARGETS ((1LL << 11) | (1LL << 7))  // SSE4, AVX3_DL; checked there
#include "kernels/targets.h"
