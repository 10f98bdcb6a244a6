// The definition of attention (attention.h) in scalar code: what every kernel must equal, bit for bit. And its exponential.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"

namespace lutra {

// 2^r for |r| <= 1/2 to 9.2e-8, exactly 1 at 0: r * (c1 + r * (c2 + ...)) + 1, least maximal relative error.
inline constexpr float kExp2Poly[5] = {0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b754p-5f,
                                       0x1.3cea9ep-7f, 0x1.5bba48p-10f};
inline constexpr float kExp2Least = -64.0f;  // smaller exponents count as this one
inline constexpr float kRoundMagic =
    12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
inline constexpr float kIntegerMagic = 8388608.0f;  // 2^23: the same for 0 <= x < 2^23
inline constexpr float kLog2E = 1.44269504088896341f;

// 2^max(x, -64) for x <= 0; NaN stays NaN.
float ExactExp2(float x);

// Of one query at position args.first_position (n_tokens and n_heads are 1): out [dv].
void ExactAttention(const AttentionArgs& args, float* out);

// The number that stands at column i of position `at`, as attention sees it: of K (q8: transformed) or of V. q8: times the scale.
float KvElement(const KvHeadLayout& layout, const uint8_t* head, bool of_v, size_t at, size_t i);

}  // namespace lutra
