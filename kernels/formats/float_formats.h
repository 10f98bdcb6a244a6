// The plain float types: rows of elements, no blocks. They share ids, sizes and row dequantization
// with the quantized formats, but no lanes and no scales.
#pragma once

#include <bit>
#include <tuple>

#include "kernels/quant_format.h"

namespace lutra {

struct F32 {
  static constexpr FormatInfo kInfo{"F32", 0, 1, 4, 0};
  static float ToFloat(const uint8_t* p) { return LoadLe<float>(p); }
};

struct F16 {
  static constexpr FormatInfo kInfo{"F16", 1, 1, 2, 0};
  static float ToFloat(const uint8_t* p) { return LoadF16(p); }
};

struct Bf16 {
  static constexpr FormatInfo kInfo{"BF16", 30, 1, 2, 0};
  static float ToFloat(const uint8_t* p) { return Bf16ToF32(LoadLe<uint16_t>(p)); }
};

using FloatFormats = std::tuple<F32, F16, Bf16>;

}  // namespace lutra
