// What the encoders of kernels/quantize share: one row in, the same row in a format out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/base/aligned.h"

namespace lutra {

// Groups of a row lie across the lanes: a chunk is 16 groups, [weight of the group][16 groups]. So a
// search runs for 16 groups at once, no sum goes across lanes, and the vector's width changes no
// bit of any result.
inline constexpr size_t kChunk = 16;

// Scratch memory of one thread; grows to the longest row it met.
struct QuantizeScratch {
  std::vector<float> x, w;      // the row in units of a power of two, its weights
  AlignedArray<float> xt, wt;   // the same, in chunks
  AlignedArray<int32_t> index;  // in chunks: what the format stores a weight (or a vector of them)
  AlignedArray<float> lanes;    // per group: what the searches take and give
  AlignedArray<float> supers;   // per block: float scales, losses
};

// Encodes a row so that sum w (x - y)^2 is small.
//   x  [n] finite, max |x| in [1, 2) or all 0: the row divided by 2^unit.
//   w  [n] finite, > 0.
//   out [RowBytes] the row of the format; what it decodes to is near x * 2^unit.
using EncodeRowFn = void (*)(const float* x, const float* w, size_t n, int unit, uint8_t* out,
                             QuantizeScratch* scratch);

// The families: one file each. nullptr if the type is none of theirs.
EncodeRowFn FindLegacyEncoder(uint32_t type_id);
EncodeRowFn FindKEncoder(uint32_t type_id);
EncodeRowFn FindIqkEncoder(uint32_t type_id);
EncodeRowFn FindCodebookEncoder(uint32_t type_id);
EncodeRowFn FindTrellisEncoder(uint32_t type_id);
EncodeRowFn FindTernaryEncoder(uint32_t type_id);

}  // namespace lutra
