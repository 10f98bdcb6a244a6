#include "kernels/dispatch.h"

#include <array>

#include "kernels/amx_bf16.h"
#include "kernels/amx_matmul.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/panel_matmul.h"
#include "kernels/panel_matmul_families.h"
#include "kernels/targets.h"

#include <hwy/highway.h>

namespace lutra {
namespace {

struct Choice {
  const char* name;
  int64_t target;   // Highway's bit; smaller is better
  bool dot4;        // 4-way 8-bit dot products in one instruction
  bool (*extra)();  // what the CPU needs beside the target
  SimdTiles tiles = SimdTiles::kNone;
};

bool Always() { return true; }

// Weakest first. Names are the command line's.
constexpr Choice kChoices[] = {
#if HWY_ARCH_X86
    {"scalar", HWY_SSE2, false, Always},
    {"sse4", HWY_SSE4, false, Always},
    {"avx2", HWY_AVX2, false, Always},
    {"avx2vnni", HWY_AVX2, true, CpuHasAvxVnni},
    {"avx3", HWY_AVX3, false, Always},
    {"avx3vnni", HWY_AVX3, true, CpuHasAvx512Vnni},
    {"avx3_dl", HWY_AVX3_DL, true, Always},
    {"amx_emulated", HWY_AVX3_DL, true, Always, SimdTiles::kEmulated},
    {"amx", HWY_AVX3_DL, true, CpuHasAmxInt8, SimdTiles::kAmx},
#elif HWY_ARCH_ARM_A64
    {"neon", HWY_STATIC_TARGET, false, Always},
    {"neon_dot", HWY_STATIC_TARGET, true, CpuHasArmDot},
#else
    {"scalar", HWY_STATIC_TARGET, false, Always},
#endif
};

bool CpuHas(const Choice& c) {
  static const int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;  // before any cap
  return (supported & c.target) != 0 && c.extra();
}

// Emulated tiles are for tests: never chosen, and not named to users.
bool IsOffered(const Choice& c) { return c.tiles != SimdTiles::kEmulated; }

const Choice& Best(bool allow_amx = true) {
  const Choice* best = &kChoices[0];
  for (const Choice& c : kChoices) {
    if (IsOffered(c) && (allow_amx || c.tiles == SimdTiles::kNone) && CpuHas(c)) best = &c;
  }
  return *best;
}

const Choice*& Current() {
  static const Choice* current = &Best();
  return current;
}

}  // namespace

void SetSimd(const std::string& name, bool allow_amx) {
  (void)CpuHas(kChoices[0]);
  if (name == "auto") {
    hwy::SetSupportedTargetsForTest(0);
    Current() = &Best(allow_amx);
    return;
  }
  std::string names = "auto";
  for (const Choice& c : kChoices) {
    if (IsOffered(c)) names += std::string(" ") + c.name;
    if (name != c.name) continue;
    if (c.tiles == SimdTiles::kAmx && !allow_amx) {
      Fail(
          ErrorCode::kInvalidArgument,
          "simd: 'amx' is asked for and forbidden (--no-amx, LUTRA_NO_AMX) at once: leave one out");
    }
    if (!CpuHas(c)) {
      Fail(ErrorCode::kUnsupported, "simd: this CPU has no '%s'; its best is '%s'", c.name,
           Best().name);
    }
    // The target and everything below it (greater bits).
    hwy::SetSupportedTargetsForTest(0);
    hwy::SetSupportedTargetsForTest(hwy::SupportedTargets() & ~(c.target - 1));
    Current() = &c;
    return;
  }
  Fail(ErrorCode::kInvalidArgument, "simd: '%s' is not known; it takes one of: %s",
       Printable(name).c_str(), names.c_str());
}

namespace {
bool prefill_is_fast = false;
}

void SetPrefill(const std::string& name) {
  if (name != "exact" && name != "fast") {
    Fail(ErrorCode::kInvalidArgument, "prefill: '%s' is not known; it takes exact or fast",
         Printable(name).c_str());
  }
  prefill_is_fast = name == "fast";
}

bool PrefillIsFast() { return prefill_is_fast; }

std::vector<std::string> AvailableSimd() {
  std::vector<std::string> names;
  for (const Choice& c : kChoices) {
    if (IsOffered(c) && CpuHas(c)) names.push_back(c.name);
  }
  return names;
}

std::vector<std::string> SimdToTest() {
  std::vector<std::string> names;
  for (const Choice& c : kChoices) {
    if (CpuHas(c)) names.push_back(c.name);
  }
  return names;
}

std::string SimdName() { return Current()->name; }
bool SimdHasDot4() { return Current()->dot4; }
SimdTiles SimdTilesInUse() { return Current()->tiles; }

PanelMatMulFn FindPanelMatMul(uint32_t type_id) {
  for (const auto find :
       {FindLegacyPanelMatMul, FindKPanelMatMul, FindIqkPanelMatMul, FindCodebookPanelMatMul}) {
    if (const PanelMatMulFn fn = find(type_id, SimdHasDot4())) return fn;
  }
  return nullptr;
}

PanelMatMulFn FindTilePanelMatMul(uint32_t type_id) {
  const SimdTiles tiles = SimdTilesInUse();
  return tiles == SimdTiles::kNone ? nullptr
                                   : FindAmxPanelMatMul(type_id, tiles == SimdTiles::kEmulated);
}

Bf16MatMulFn FindTileBf16MatMul(uint32_t type_id) {
  const SimdTiles tiles = SimdTilesInUse();
  if (tiles == SimdTiles::kNone || (tiles == SimdTiles::kAmx && !CpuAmx().bf16)) return nullptr;
  return FindAmxBf16MatMul(type_id, tiles == SimdTiles::kEmulated);
}

}  // namespace lutra
