#include "kernels/weights.h"

#include "kernels/formats/float_formats.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/float_matmul.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/fixed_order-inl.h"
#include "kernels/float_dots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lutra {
namespace HWY_NAMESPACE {

void FloatMatMulTarget(uint32_t type_id, const uint8_t* w, size_t row_begin, size_t row_end,
                       size_t n_cols, const float* x, size_t x_stride, size_t token_begin,
                       size_t token_end, float* y, size_t y_stride) {
  if (type_id == F32::kInfo.type_id) {
    DotRows<float>(reinterpret_cast<const float*>(w), row_begin, row_end, n_cols, x, x_stride, token_begin, token_end, y, y_stride);
  } else if (type_id == F16::kInfo.type_id) {
    DotRows<hwy::float16_t>(reinterpret_cast<const hwy::float16_t*>(w), row_begin, row_end, n_cols, x, x_stride, token_begin, token_end, y, y_stride);
  } else {
    DotRows<hwy::bfloat16_t>(reinterpret_cast<const hwy::bfloat16_t*>(w), row_begin, row_end, n_cols, x, x_stride, token_begin, token_end, y, y_stride);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace lutra
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lutra {
HWY_EXPORT(FloatMatMulTarget);
void FloatMatMul(uint32_t type_id, const uint8_t* w, size_t row_begin, size_t row_end, size_t n_cols,
                 const float* x, size_t x_stride, size_t token_begin, size_t token_end, float* y,
                 size_t y_stride) {
  HWY_DYNAMIC_DISPATCH(FloatMatMulTarget)(type_id, w, row_begin, row_end, n_cols, x, x_stride,
                                          token_begin, token_end, y, y_stride);
}
}  // namespace lutra
#endif
