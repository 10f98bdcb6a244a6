#include "kernels/formats/all.h"
#include "kernels/panel_matmul_families.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/panel_matmul_legacy.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/panel_matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {
PanelMatMulFn FindLegacyTarget(uint32_t type_id, bool dot4) {
  return FindPanelMatMul<LegacyFormats>(type_id, dot4);
}
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
namespace {
HWY_EXPORT(FindLegacyTarget);
}
PanelMatMulFn FindLegacyPanelMatMul(uint32_t type_id, bool dot4) {
  return HWY_DYNAMIC_DISPATCH(FindLegacyTarget)(type_id, dot4);
}
}  // namespace lutra
#endif
