// The SIMD targets of the encoders: SSE2, AVX2, AVX3 on x86; fewer than those of the products, for the sake of build time. All
// give the same bytes. Include before any Highway header.
#pragma once

#ifndef HWY_DISABLED_TARGETS  // macros of detect_targets.h, which takes 0 if this comes later
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#endif
#include <hwy/detect_targets.h>

#include "kernels/targets.h"
