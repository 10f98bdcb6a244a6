// The float scales of blocks and rows: rounding to what a format can hold, and storing.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/quant_format.h"

namespace lutra {

// The nearest IEEE binary16, ties to even; the largest finite one instead of infinity. x is finite.
inline uint16_t NearestF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t m = bits & 0x7FFFFFFF;
  uint32_t h;
  if (m >= 0x477FE000) {
    h = 0x7BFF;
  } else if (m < 0x38800000) {  // an integer multiple of 2^-24; adding 2^23 rounds it
    h = std::bit_cast<uint32_t>(std::bit_cast<float>(m) * 0x1p24f + 0x1p23f) - 0x4B000000;
  } else {
    h = (m - 0x38000000 + 0xFFF + (m >> 13 & 1)) >> 13;
  }
  return static_cast<uint16_t>(sign | h);
}

// 2^e, e within [-1022, 1023].
inline double PowerOf2(int e) {
  return std::bit_cast<double>(static_cast<uint64_t>(e + 1023) << 52);
}

// What a row's super-scales are multiplied by after all is chosen. Values y of least loss are too small as a whole: y.x = y.y, which is
// less than x.x by the loss, and so is what a matrix gives, layer after layer. With this y.x = x.x. The loss grows by its square, but a
// model of 2-bit weights is nearer to its source by an eighth: docs/quantization.md.
inline float LostGain(double loss, double zero_loss) {
  constexpr double kMost = 1.15, kLeastLoss = 0.03;  // below that little is won
  if (!(loss > kLeastLoss * zero_loss)) return 1.0f;
  return static_cast<float>(
      std::min(zero_loss / std::max(zero_loss - loss, 1e-3 * zero_loss), kMost));
}

inline void StoreLe16(uint8_t* p, uint16_t v) { std::memcpy(p, &v, 2); }

// The super-scale of format F, in the block or in front of the row. Values are in units of 2^unit.
template <QuantFormat F>
class SuperScale {
 public:
  using Row = typename F::RowHeader;
  using Block = typename F::Block;

  // The value nearest to d (not 0: the smallest one with its sign, if that is of any use) that the format holds.
  // |d| < 2^30.
  static float Round(double d, int unit) {
    if (d == 0.0 || !std::isfinite(d)) return 0.0f;
    const double x = d * PowerOf2(unit) / Factor();
    double held;
    if constexpr (requires(Block b) { b.e; }) {
      held = PowerOf2(PowerOfTwo(std::abs(x)) - 128);
    } else if constexpr (sizeof(Row) == 4 && F::kInfo.row_header_bytes == 4) {
      held = static_cast<double>(static_cast<float>(x));
    } else {
      uint16_t h = NearestF16(static_cast<float>(x));
      if ((h & 0x7FFF) == 0) h = x < 0 ? 0x8001 : 0x0001;
      held = static_cast<double>(F16ToF32(h));
    }
    held = held * Factor() * PowerOf2(-unit);
    return std::abs(held) > 16.0 ? 0.0f : static_cast<float>(held);
  }

  // Stores the nearest value.
  static void Store(Row* row, Block* block, float d, int unit) {
    const double x = static_cast<double>(d) * PowerOf2(unit) / Factor();
    const float f = static_cast<float>(x);
    if constexpr (requires(Block b) { b.e; }) {
      block->e[0] = static_cast<uint8_t>(d == 0.0f ? 0 : PowerOfTwo(std::abs(x)));
    } else if constexpr (F::kInfo.row_header_bytes == 4) {
      std::memcpy(row->d, &f, 4);
    } else if constexpr (F::kInfo.row_header_bytes == 2) {
      StoreLe16(row->d, NearestF16(f));
    } else {
      StoreHalf(block, NearestF16(f));
    }
  }

 private:
  // What the format multiplies a stored f16 by: 1, or the reciprocal of its levels' unit.
  static double Factor() {
    if constexpr (F::kSuper == SuperKind::kF32) {
      static const double factor = [] {
        Block block;
        std::memset(&block, 0, sizeof block);
        StoreHalf(&block, 0x3C00);
        return static_cast<double>(F::Super(Row(), block));
      }();
      return factor;
    } else {
      return 1.0;
    }
  }
  static void StoreHalf(Block* block, uint16_t h) {
    if constexpr (requires(Block b) { b.sc; }) {  // a nibble in the top of each of four words
      for (size_t k = 0; k < 4; ++k) {
        block->sc[2 * k + 1] =
            static_cast<uint8_t>((block->sc[2 * k + 1] & 15) | (h >> (4 * k) & 15) << 4);
      }
    } else {
      StoreLe16(block->d, h);
    }
  }
  // e of the power of two 2^(e - 128) nearest to x.
  static int PowerOfTwo(double x) {
    int e = 0;
    const double m = std::frexp(x, &e);  // x = m 2^e, m in [0.5, 1)
    e = e - 1 + (m > 0.70710678 ? 1 : 0) + 128;
    return e < 0 ? 0 : e > 254 ? 254 : e;
  }
};

}  // namespace lutra
