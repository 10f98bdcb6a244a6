// Rows of any readable tensor type to float, by the scalar definition of the format: exact, not
// fast. For embedding look-ups, conversions and as the reference of the matrix products.
#pragma once

#include <cstdint>

namespace lutra {

// out[0, n) = the n weights of one row.
//   row  the row header and n / block_weights blocks: RowBytes(type, n) bytes, any alignment.
//   n    a multiple of the block_weights of the type (see tensor_type.h); the caller has checked
//   it.
// Every product is rounded to float in the order of quant_format.h. Any bytes are a valid row: what
// comes out may be infinite or NaN where the float scales in the row are. Thread-safe; never
// throws.
using DequantizeFn = void (*)(const uint8_t* row, uint64_t n, float* out);

// The function for a GGUF tensor type id; nullptr if no format here decodes it
// (TensorTypeInfo::readable is false).
DequantizeFn FindDequantizer(uint32_t type_id);

}  // namespace lutra
