#include "kernels/formats/all.h"
#include "kernels/quantize/row_encoder.h"
#include "kernels/quantize/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize/codebook_encoder.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/quantize/grid_assign-inl.h"
#include "kernels/quantize/find_encoder-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
EncodeRowFn FindCodebookEncoderTarget(uint32_t type_id) {
  return FindEncoder<CodebookFormats>(type_id);
}
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {
HWY_EXPORT(FindCodebookEncoderTarget);
}
EncodeRowFn FindCodebookEncoder(uint32_t type_id) {
  return HWY_DYNAMIC_DISPATCH(FindCodebookEncoderTarget)(type_id);
}
}  // namespace lutra
#endif
