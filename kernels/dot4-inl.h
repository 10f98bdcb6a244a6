// The 4-way 8-bit dot product of x86 as one instruction, per target.
#if defined(LUTRA_DOT4_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_DOT4_INL_H_
#undef LUTRA_DOT4_INL_H_
#else
#define LUTRA_DOT4_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// acc[lane] += sum of 4 u8 x i8 products, exactly: vpdpbusd, with VNNI (AVX3_DL has it; AVX2 and AVX3 on CPUs with AVX-VNNI, as Alder Lake, or
// AVX512_VNNI, as Cascade Lake). Assembly, because the instruction is all we want of those extensions, and because g++ 12 moves the
// accumulators of its builtin around and repeats broadcasts as memory operands.
HWY_INLINE VI Vpdpbusd(VI acc, hn::Vec<hn::Repartition<uint8_t, DI>> u,
                       hn::Vec<hn::Repartition<int8_t, DI>> a) {
#if HWY_TARGET == HWY_AVX2
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.raw) : "x"(u.raw), "x"(a.raw));
#else
  asm("vpdpbusd %2, %1, %0" : "+v"(acc.raw) : "v"(u.raw), "v"(a.raw));
#endif
  return acc;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();
#endif

#endif  // LUTRA_DOT4_INL_H_
