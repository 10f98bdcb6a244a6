// Rows of random weights in any readable tensor type, for models that exist only to be measured.
//
// All index and block-scale bits are random, so that kernels meet every code; the float scales are small numbers chosen once a
// type, so that the weights have mean near 0 and the spread asked for. (Constant or zero weights would run faster than real
// ones: they switch fewer transistors.)
#pragma once

#include <cstdint>

namespace lutra {

// Writes rows [first_row, first_row + n_rows) of n_cols weights each, RowBytes(type, n_cols) bytes a row, to `out`.
//   n_cols   a multiple of the type's block_weights
//   mean     of the weights; quantized types are made for about 0 and ignore it
//   spread   standard deviation of the weights, > 0
// Row r depends on `seed` and r alone: rows may be made in any order and by any thread. Never throws.
using RandomRowsFn = void (*)(uint64_t seed, uint64_t first_row, uint64_t n_rows, uint64_t n_cols,
                              float mean, float spread, uint8_t* out);

// The function for a GGUF tensor type id; nullptr if no format here has it.
RandomRowsFn FindRandomRows(uint32_t type_id);

}  // namespace lutra
