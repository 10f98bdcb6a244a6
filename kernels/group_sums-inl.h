// Sums of a token's activations over groups of columns, from those of 16 that are kept with them (kernels/q8_activations.h), and what is made of
// them: products of pairs.
#if defined(LUTRA_GROUP_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_GROUP_SUMS_INL_H_
#undef LUTRA_GROUP_SUMS_INL_H_
#else
#define LUTRA_GROUP_SUMS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/fixed_order-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// out [256 / kGroup] = factor * the sums of the groups of a block of 256 columns; sums [16]. kGroup: 16 or 32.
template <int kGroup>
HWY_INLINE void GroupSums(const int16_t* HWY_RESTRICT sums, int factor, int32_t* HWY_RESTRICT out) {
  if constexpr (kGroup == 16) {
    const DI di;
    const hn::Rebind<int16_t, DI> d16;
    LUTRA_UNROLL(4)
    for (size_t i = 0; i < 16; i += kLanes) {
      hn::Store(hn::Mul(hn::PromoteTo(di, hn::LoadU(d16, sums + i)), hn::Set(di, factor)), di,
                out + i);
    }
  } else {
    const hn::CappedTag<int32_t, 8> di;
    const hn::Repartition<int16_t, decltype(di)> d16;
    LUTRA_UNROLL(2)
    for (size_t i = 0; i < 8; i += hn::Lanes(di)) {
      hn::Store(hn::WidenMulPairwiseAdd(di, hn::LoadU(d16, sums + 2 * i),
                                        hn::Set(d16, static_cast<int16_t>(factor))),
                di, out + i);
    }
  }
}

// out [8] = sums of 32 columns; sums [16] of 16. At most 32 * 127: they fit.
HWY_INLINE void SumsOf32(const int16_t* HWY_RESTRICT sums, int16_t* HWY_RESTRICT out) {
  const hn::CappedTag<int32_t, 8> di;
  const hn::Repartition<int16_t, decltype(di)> d16;
  const hn::Rebind<int16_t, decltype(di)> half16;
  LUTRA_UNROLL(2)
  for (size_t i = 0; i < 8; i += hn::Lanes(di)) {
    const auto two =
        hn::WidenMulPairwiseAdd(di, hn::LoadU(d16, sums + 2 * i), hn::Set(d16, int16_t{1}));
    hn::StoreU(hn::DemoteTo(half16, two), half16, out + i);
  }
}

// The four bytes at p in every lane.
HWY_INLINE VI Broadcast4(const void* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return hn::Set(DI(), four);
}

// sum + two products of int16 in every lane, of which a and b each hold two.
HWY_INLINE VI DotPairs(VI sum, VI a, VI b) {
  const hn::Repartition<int16_t, DI> d16;
#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86
  VI unused = sum;
  return hn::ReorderWidenMulAccumulate(DI(), hn::BitCast(d16, a), hn::BitCast(d16, b), sum, unused);
#else
  return hn::Add(sum, hn::WidenMulPairwiseAdd(DI(), hn::BitCast(d16, a), hn::BitCast(d16, b)));
#endif
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // LUTRA_GROUP_SUMS_INL_H_
