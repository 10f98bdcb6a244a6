// Which SIMD code runs. Decided once at start from what the CPU has; may be capped for tests and comparisons.
#pragma once

#include <string>
#include <vector>

namespace lutra {

// Caps the instruction sets in use: "auto", on x86 "scalar" (the baseline, SSE2), "sse4", "avx2", "avx2vnni", "avx3",
// "avx3vnni", "avx3_dl", "amx" (AVX3_DL, and tiles for products with many tokens), on 64-bit ARM "neon" and "neon_dot" (with sdot). Sets that the CPU lacks are an Error(kUnsupported),
// unknown names Error(kInvalidArgument) listing the names. Call before any matrix is packed; not thread-safe. All choices give the same
// bits. Without `allow_amx` "auto" takes the best set but AMX, and "amx" is an Error(kInvalidArgument). For tests there is also
// "amx_emulated": as "amx" with tiles in plain C++, slow, on CPUs with AVX3_DL.
void SetSimd(const std::string& name, bool allow_amx = true);

// The choices this CPU can run, weakest first (without "auto").
std::vector<std::string> AvailableSimd();

// The same and "amx_emulated" where that runs: what tests compare.
std::vector<std::string> SimdToTest();

// The choice in use, as SetSimd takes it.
std::string SimdName();

// How prompts meet weights: "exact" (the default: the same bits in any batch) or "fast": with many tokens, weights of formats with an
// integer scale per 16 or 32 are rounded to int8 with one scale per 256 on the way, faster on AVX-512 with VNNI (docs/kernels.md) and the same
// elsewhere, and on AMX F16 and BF16 weights meet activations rounded to bf16 (kernels/amx_bf16.h); results then depend on how many tokens a
// batch has. Others are Error(kInvalidArgument). Call before scratch is sized and anything is computed; not thread-safe.
void SetPrefill(const std::string& name);
bool PrefillIsFast();

// Whether products of many tokens go to tiles: the machine's or emulated ones (kernels/amx_tiles.h).
enum class SimdTiles { kNone, kAmx, kEmulated };
SimdTiles SimdTilesInUse();

// True if 4-way 8-bit dot products may use the instruction for them (vpdpbusd, sdot), which the chosen Highway target may lack.
bool SimdHasDot4();

}  // namespace lutra
