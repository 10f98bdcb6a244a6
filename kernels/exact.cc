#include "kernels/exact.h"

#include <cmath>
#include <cstring>

#include "kernels/formats/all.h"

namespace lutra {
namespace {

template <QuantFormat F>
float ExactDot(const uint8_t* row_bytes, const Q8View& x) {
  typename F::RowHeader row{};
  if constexpr (F::kInfo.row_header_bytes != 0)
    std::memcpy(&row, row_bytes, F::kInfo.row_header_bytes);
  const uint8_t* blocks = row_bytes + F::kInfo.row_header_bytes;
  const int8_t* q = x.q;
  float y = 0.0f;
  for (size_t begin = 0; begin < x.n_cols; begin += x.unit) {
    typename F::Block block;
    std::memcpy(&block, blocks + begin / F::kInfo.block_weights * sizeof block, sizeof block);
    const size_t in_block = begin % F::kInfo.block_weights;
    int32_t s = 0;
    int32_t b = 0;
    for (size_t g = 0; g < x.unit / F::kGroup; ++g) {
      int32_t dot = 0;
      int32_t sum = 0;
      for (size_t i = g * F::kGroup; i < (g + 1) * F::kGroup; ++i) {
        dot += Lane<F>(block, in_block + i) * q[begin + i];
        sum += q[begin + i];
      }
      const size_t group = in_block / F::kGroup + g;
      s += F::Scale(block, group) * dot;
      if constexpr (F::kHasBias) b += F::Bias(block, group) * sum;
    }
    const float d = x.d[begin / x.unit];
    y = std::fma(F::Super(row, block) * d, static_cast<float>(s), y);
    if constexpr (F::kHasBias) y = std::fma(F::BiasSuper(row, block) * d, static_cast<float>(b), y);
  }
  return y;
}

}  // namespace

bool ExactMatVec(uint32_t type_id, const uint8_t* rows, size_t n_rows, const Q8View& x, float* y) {
  bool found = false;
  ForEachFormat<AllFormats>([&]<class F>() {
    if (F::kInfo.type_id != type_id) return;
    found = true;
    const size_t row_bytes =
        F::kInfo.row_header_bytes + x.n_cols / F::kInfo.block_weights * F::kInfo.block_bytes;
    for (size_t r = 0; r < n_rows; ++r) y[r] = ExactDot<F>(rows + r * row_bytes, x);
  });
  return found;
}

}  // namespace lutra
