#include "kernels/dequantize.h"

#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"

namespace lutra {
namespace {

template <QuantFormat F>
void DequantizeRow(const uint8_t* row, uint64_t n, float* out) {
  // Headers and blocks are structs of bytes: any address will do.
  const auto& header = *reinterpret_cast<const typename F::RowHeader*>(row);
  const auto* blocks = reinterpret_cast<const typename F::Block*>(row + F::kInfo.row_header_bytes);
  static_assert(alignof(typename F::RowHeader) == 1 && alignof(typename F::Block) == 1);
  constexpr uint64_t kWeights = F::kInfo.block_weights;
  for (uint64_t b = 0; b < n / kWeights; ++b) {
    const typename F::Block block = blocks[b];  // what is written to `out` cannot change it
    const float super = F::Super(header, block);
    for (size_t g = 0; g < kWeights / F::kGroup; ++g) {
      // As Value(), with what is the same for the group done once.
      const float scale = super * static_cast<float>(F::Scale(block, g));
      const float bias =
          F::kHasBias ? F::BiasSuper(header, block) * static_cast<float>(F::Bias(block, g)) : 0.0f;
      float* y = out + b * kWeights + g * F::kGroup;
      for (size_t i = 0; i < F::kGroup; ++i) {
        y[i] = scale * static_cast<float>(Lane<F>(block, g * F::kGroup + i));
        if constexpr (F::kHasBias) y[i] = y[i] + bias;
      }
    }
  }
}

template <class F>
void ConvertRow(const uint8_t* row, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) out[i] = F::ToFloat(row + i * F::kInfo.block_bytes);
}

}  // namespace

DequantizeFn FindDequantizer(uint32_t type_id) {
  DequantizeFn found = nullptr;
  ForEachFormat<FloatFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = ConvertRow<F>;
  });
  ForEachFormat<AllFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = DequantizeRow<F>;
  });
  return found;
}

}  // namespace lutra
