// The per-target product kernels over packed panels, and how the one for a format is found.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/q8_activations.h"

namespace lutra {

// What a kernel needs of a packed matrix [n_rows, n_cols] (kernels/panel.h).
struct PanelMatrix {
  const uint8_t* panels;  // ceil(n_rows / 16) panels
  size_t panel_bytes;
  size_t n_rows;
  const uint8_t* table;  // [64] LaneTable
};

// y[token, row] = sum_k w[row, k] * x[token, k] for the rows of panels [panel_begin, panel_end) and all tokens of x; y has y_stride
// floats a token. Disjoint ranges may run concurrently. Never throws.
using PanelMatMulFn = void (*)(const PanelMatrix& w, const Q8View& x, size_t panel_begin,
                               size_t panel_end, float* y, size_t y_stride);

// Up to so many tokens `--prefill fast` changes nothing: decoding for a few is dearer than their products.
inline constexpr size_t kMostExactTokens = 64;

// Kernel of a format for the best SIMD target in use (see kernels/dispatch.h), nullptr if the id is no quantized format.
PanelMatMulFn FindPanelMatMul(uint32_t type_id);

}  // namespace lutra
