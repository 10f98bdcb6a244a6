// The SIMD targets that every per-target file is compiled for; the best one the CPU has is chosen at run time. Include before
// any Highway header.
//
// On x86: SSE2 (baseline), SSE4, AVX2, AVX3 (AVX-512 F/BW/DQ/VL), AVX3_DL (+ VNNI, VBMI: Ice Lake and later). ZEN4 and SPR are
// left out: they add bf16 and f16 arithmetic, which exact kernels do not use, and a third of the build time.
// With LUTRA_FEW_SIMD_TARGETS (the CMake option) only SSE2 and AVX2: for builds that would take too long otherwise.
#pragma once

// Must be known before Highway's own defaults are: as numbers, checked below.
#if defined(LUTRA_FEW_SIMD_TARGETS)
#undef LUTRA_SKIPPED_TARGETS
#define LUTRA_SKIPPED_TARGETS ((1LL << 11) | (1LL << 8) | (1LL << 7))
#elif !defined(LUTRA_SKIPPED_TARGETS)
#define LUTRA_SKIPPED_TARGETS 0LL
#endif
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS ((1LL << 12) | (1LL << 6) | (1LL << 4) | LUTRA_SKIPPED_TARGETS)
#endif
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL
#endif

#include <hwy/detect_targets.h>

#if HWY_SSSE3 != (1LL << 12) || HWY_AVX3_ZEN4 != (1LL << 6) || HWY_AVX3_SPR != (1LL << 4) || \
    HWY_SSE4 != (1LL << 11) || HWY_AVX3 != (1LL << 8) || HWY_AVX3_DL != (1LL << 7)
#error "Highway has renumbered its targets"
#endif

// Unrolls the loop that follows: arrays of vectors indexed by its counter then stay in registers.
#if defined(__clang__)
#define LUTRA_UNROLL(n) _Pragma("clang loop unroll(full)")
#else
#define LUTRA_UNROLL_STRING(x) #x
#define LUTRA_UNROLL(n) _Pragma(LUTRA_UNROLL_STRING(GCC unroll n))
#endif
