// The definition of a quantized product, scalar, straight from the format's Lane, Scale and Super: what every kernel must equal,
// bit for bit.
//
// With q, d from QuantizeRowReference (one d per unit of 256 or 32 activations), for each unit in index order
//   S = sum over groups g of Scale(g) * sum_{k in g} Lane(k) * q[k]              an exact int32
//   B = sum over groups g of Bias(g) * sum_{k in g} q[k]                         an exact int32 (formats with a bias)
//   y = fma(Super * d, float(S), y);   then   y = fma(BiasSuper * d, float(B), y)
// starting from y = 0; Super * d is rounded to float, float(S) to nearest even. |S| < 2^31 for every format: 256 * 127^3 < 2^29.
// It does not matter in which order, with which instruction or in how many pieces S and B are summed, so GEMV and GEMM on
// AVX2, AVX-512, AMX and NEON give identical bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/q8_activations.h"

namespace lutra {

// y[r] for rows [0, n_rows) given as in the file; x is a view of one token. False if the type id is no quantized format.
bool ExactMatVec(uint32_t type_id, const uint8_t* rows, size_t n_rows, const Q8View& x, float* y);

}  // namespace lutra
