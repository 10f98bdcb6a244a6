#include "kernels/formats/all.h"
#include "kernels/quantize/row_encoder.h"
#include "kernels/quantize/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize/iqk_encoder.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/quantize/iqk_assign-inl.h"
#include "kernels/quantize/find_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
EncodeRowFn FindIqkEncoderTarget(uint32_t type_id) { return FindEncoder<IqkFormats>(type_id); }
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {
HWY_EXPORT(FindIqkEncoderTarget);
}
EncodeRowFn FindIqkEncoder(uint32_t type_id) {
  return HWY_DYNAMIC_DISPATCH(FindIqkEncoderTarget)(type_id);
}
}  // namespace lutra
#endif
