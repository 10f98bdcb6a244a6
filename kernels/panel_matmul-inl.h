// Products of packed panels (kernels/panel.h) with quantized activations, per target. Integer-exact inside a unit, then one
// fused multiply-add a unit in index order:
//   y = fma(super * d, float(sum_g scale_g * sum_k lane_k * q_k), y)
//   y = fma(bias_super * d, float(sum_g bias_g * sum_k q_k), y)        formats with a bias
// so every target, tile shape and instruction gives the same bits (kernels/exact.h is the scalar definition).
#if defined(LUTRA_PANEL_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_PANEL_MATMUL_INL_H_
#undef LUTRA_PANEL_MATMUL_INL_H_
#else
#define LUTRA_PANEL_MATMUL_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "kernels/panel_gemm-inl.h"
#include "kernels/panel_gemv-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// Up to so many tokens take the indexes through registers, pass by pass; more share blocks that are decoded once. On AVX-512 with VNNI passes of 6
// tokens reach what blocks do, and blocks pay from about 64 to 100 tokens on.
template <class DotT>
constexpr size_t kMostRegisterTokens =
    DotT::kOneInstruction&& kLanes == 16 ? kMostExactTokens : 2 * kFewTokens;

// The entry point of kind kKind: all tokens x panels [panel_begin, panel_end).
template <PanelKind kKind, class DotT>
void PanelMatMul(const PanelMatrix& w, const Q8View& x, size_t panel_begin, size_t panel_end,
                 float* y, size_t y_stride) {
  if (x.n_tokens <= kMostRegisterTokens<DotT>)
    return FewTokensPanels<kKind, DotT>(w, x, panel_begin, panel_end, y, y_stride);
  // Rounding to one scale per 256 pays where 4-way dots would leave registers for every group: on AVX-512.
  if constexpr (DotT::kOneInstruction && CanRound(kKind)) {
    static_assert(kMostRegisterTokens<DotT> == kMostExactTokens);
    if (x.fast)
      return ManyTokensPanels<kKind, DotT, true>(w, x, panel_begin, panel_end, y, y_stride);
  }
  ManyTokensPanels<kKind, DotT>(w, x, panel_begin, panel_end, y, y_stride);
}

// The kernel of the format with this type id among the formats of `Tuple`, or nullptr.
template <class Tuple>
PanelMatMulFn FindPanelMatMul(uint32_t type_id, [[maybe_unused]] bool dot4) {
  PanelMatMulFn found = nullptr;
  ForEachFormat<Tuple>([&]<class F>() {
    if (F::kInfo.type_id != type_id) return;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
    found = &PanelMatMul<KindOf<F>(), DotVnni>;
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    found = dot4 ? &PanelMatMul<KindOf<F>(), DotVnni> : &PanelMatMul<KindOf<F>(), DotNone>;
#elif HWY_ARCH_ARM_A64
    found = dot4 ? &PanelMatMul<KindOf<F>(), DotSigned> : &PanelMatMul<KindOf<F>(), DotNone>;
#else
    found = &PanelMatMul<KindOf<F>(), DotNone>;
#endif
  });
  return found;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_PANEL_MATMUL_INL_H_
