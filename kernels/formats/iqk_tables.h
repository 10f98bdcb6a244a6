// The value tables of the IQK formats: non-linear int8 levels, found by Iwan Kawrakow
// (ik_llama.cpp, discussion 8). Each has a second, shifted form: every entry plus kShift. They
// are small on purpose: they stay in SIMD registers.
#pragma once

#include <array>
#include <cstdint>

namespace lutra::iqk {

inline constexpr std::array<int8_t, 4> kTable2 = {-31, -13, 1, 17};
inline constexpr int kShift2 = 5;

inline constexpr std::array<int8_t, 8> kTable3 = {-63, -40, -23, -10, 1, 13, 28, 47};
inline constexpr int kShift3 = 4;

inline constexpr std::array<int8_t, 16> kTable4 = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                   1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int kShift4 = 4;

inline constexpr std::array<int8_t, 32> kTable5 = {
    -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6,
    -1,   5,    11,   17,  23,  29,  36,  43,  51,  59,  68,  77,  87,  97,  109, 121};
inline constexpr int kShift5 = 2;

inline constexpr std::array<int8_t, 64> kTable6 = {
    -127, -121, -115, -109, -104, -98, -93, -88, -84, -79, -74, -70, -66, -62, -58, -54,
    -51,  -47,  -44,  -40,  -37,  -34, -31, -28, -25, -22, -19, -16, -13, -11, -8,  -5,
    -2,   0,    3,    6,    9,    12,  14,  17,  20,  23,  27,  30,  33,  36,  40,  44,
    47,   51,   55,   59,   63,   68,  72,  77,  82,  87,  92,  98,  103, 109, 115, 121};
inline constexpr int kShift6 = 1;

// IQ2_KL: the 32 pairs of indexes into kTable3 that its 5-bit indexes stand for.
inline constexpr uint8_t kPairs[32][2] = {
    {0, 2}, {0, 5}, {1, 0}, {1, 3}, {1, 5}, {1, 7}, {2, 1}, {2, 2}, {2, 4}, {2, 5}, {2, 6},
    {3, 0}, {3, 4}, {3, 5}, {3, 7}, {4, 2}, {4, 3}, {4, 4}, {4, 5}, {4, 6}, {5, 1}, {5, 2},
    {5, 3}, {5, 4}, {5, 5}, {6, 0}, {6, 2}, {6, 4}, {6, 6}, {6, 7}, {7, 2}, {7, 5}};

}  // namespace lutra::iqk
