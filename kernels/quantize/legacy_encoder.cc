#include "kernels/formats/all.h"
#include "kernels/quantize/row_encoder.h"
#include "kernels/quantize/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize/legacy_encoder.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/quantize/affine_encoder-inl.h"
#include "kernels/quantize/find_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
EncodeRowFn FindLegacyEncoderTarget(uint32_t type_id) {
  return FindEncoder<LegacyFormats>(type_id);
}
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {
HWY_EXPORT(FindLegacyEncoderTarget);
}
EncodeRowFn FindLegacyEncoder(uint32_t type_id) {
  return HWY_DYNAMIC_DISPATCH(FindLegacyEncoderTarget)(type_id);
}
}  // namespace lutra
#endif
