// The encoder of a format, by its traits.
#if defined(LUTRA_FIND_ENCODER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LUTRA_FIND_ENCODER_INL_H_
#undef LUTRA_FIND_ENCODER_INL_H_
#else
#define LUTRA_FIND_ENCODER_INL_H_
#endif

#include "kernels/formats/all.h"
#include "kernels/quantize/affine_encoder-inl.h"
#include "kernels/quantize/level_assign-inl.h"
#include "kernels/quantize/scaled_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

// How the levels of a format are chosen: one by one, unless its family says otherwise.
template <QuantFormat F>
struct AssignOf {
  using type = LevelAssign<F>;
};

template <class Tuple>
EncodeRowFn FindEncoder(uint32_t type_id) {
  EncodeRowFn found = nullptr;
  ForEachFormat<Tuple>([&]<class F>() {
    if (F::kInfo.type_id != type_id) return;
    if constexpr (F::kHasBias) {
      found = AffineEncoder<F>::EncodeRow;
    } else {
      found = ScaledEncoder<F, typename AssignOf<F>::type>::EncodeRow;
    }
  });
  return found;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#endif  // include guard
