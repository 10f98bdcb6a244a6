#include "kernels/random_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"
#include "kernels/ops.h"

namespace lutra {
namespace {

// Steele, Lea and Flood 2014 (SplitMix64): random access, 8 bytes a step.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void FillRandom(uint64_t seed, uint8_t* out, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint64_t v = Mix(seed + i);
    std::memcpy(out + i, &v, 8);
  }
  const uint64_t v = Mix(seed + i);
  std::memcpy(out + i, &v, n - i);
}

uint16_t ToF16(float x) {
  uint16_t bits;
  F32ToF16(&x, 1, &bits);
  return bits;
}

// A float in both forms that formats keep it in.
struct Float {
  explicit Float(double x) : f32(static_cast<float>(x)), f16(ToF16(f32)) {}
  float f32;
  uint16_t f16;
};

// Stores the float scale of a block or row: f16 or f32 by the field's size.
template <size_t kBytes>
void Store(const Float& x, uint8_t (&field)[kBytes]) {
  static_assert(kBytes == 2 || kBytes == 4, "a float scale is f16 or f32");
  if constexpr (kBytes == 2) {
    std::memcpy(field, &x.f16, 2);
  } else {
    std::memcpy(field, &x.f32, 4);
  }
}

// Sets Super to about `super`, and BiasSuper to about -`minimum` in formats that have one. Where a format keeps them is asked
// by the names that format headers use.
template <QuantFormat F>
void SetFloats(const Float& super, [[maybe_unused]] const Float& minimum,
               [[maybe_unused]] typename F::RowHeader& row, [[maybe_unused]] typename F::Block& b) {
  if constexpr (requires { b.dmin; }) Store(minimum, b.dmin);
  if constexpr (requires { b.m; }) {
    Store(minimum, b.m);
    b.m[1] ^= 0x80;  // these add what they store
  }
  if constexpr (requires { b.d; }) {
    Store(super, b.d);
  } else if constexpr (requires { row.d; }) {
    Store(super, row.d);
  } else if constexpr (requires { b.e; }) {  // 2^(e - 128), the nearest
    b.e[0] = static_cast<uint8_t>((std::bit_cast<uint32_t>(super.f32 * 1.4142135f) >> 23) + 1);
  } else {  // IQ1_M: the four nibbles of an f16 on top of four words
    static_assert(sizeof(b.sc) == 8);
    for (size_t k = 0; k < 4; ++k) {
      b.sc[2 * k + 1] =
          static_cast<uint8_t>((b.sc[2 * k + 1] & 15) | ((super.f16 >> (4 * k)) & 15) << 4);
    }
  }
}

// What to store so that random bits give mean 0 and standard deviation 1. Some formats scale the stored number (d / 8), and a
// power-of-two scale is only near: measured on a sample, not derived.
struct Unit {
  double super, minimum;
};

template <QuantFormat F>
Unit Calibrate() {
  constexpr size_t kBlocks = 64;
  typename F::RowHeader row{};
  typename F::Block block;
  double sum = 0, squares = 0, biases = 0, n = 0;
  const auto visit = [&](double minimum, auto&& take) {
    for (size_t k = 0; k < kBlocks; ++k) {
      FillRandom(0x5EED + k * 65536, reinterpret_cast<uint8_t*>(&block), sizeof block);
      SetFloats<F>(Float(1), Float(minimum), row, block);
      for (size_t i = 0; i < F::kInfo.block_weights; ++i) take(i);
    }
  };
  visit(0, [&](size_t i) {
    sum += static_cast<double>(Value<F>(row, block, i));
    biases += F::Bias(block, i / F::kGroup);
    n += 1;
  });
  const double minimum = biases > 0 ? sum / biases : 0;
  sum = 0;
  visit(minimum, [&](size_t i) {
    const double v = static_cast<double>(Value<F>(row, block, i));
    sum += v;
    squares += v * v;
  });
  const double super = 1 / std::sqrt(squares / n - sum / n * (sum / n));
  return {super, minimum * super};
}

template <QuantFormat F>
void RandomQuantRows(uint64_t seed, uint64_t first_row, uint64_t n_rows, uint64_t n_cols, float,
                     float spread, uint8_t* out) {
  static const Unit unit = Calibrate<F>();
  const Float super(unit.super * static_cast<double>(spread));
  const Float minimum(unit.minimum * static_cast<double>(spread));
  constexpr size_t kHeader = F::kInfo.row_header_bytes;
  const uint64_t n_blocks = n_cols / F::kInfo.block_weights;
  const uint64_t row_bytes = kHeader + n_blocks * sizeof(typename F::Block);
  for (uint64_t r = 0; r < n_rows; ++r, out += row_bytes) {
    FillRandom(Mix(seed ^ Mix(first_row + r)), out, row_bytes);
    typename F::RowHeader header{};
    for (uint64_t k = 0; k < n_blocks; ++k) {
      typename F::Block block;
      uint8_t* at = out + kHeader + k * sizeof block;
      std::memcpy(&block, at, sizeof block);
      SetFloats<F>(super, minimum, header, block);
      std::memcpy(at, &block, sizeof block);
    }
    if constexpr (kHeader != 0) std::memcpy(out, &header, kHeader);
  }
}

template <class F>
void RandomFloatRows(uint64_t seed, uint64_t first_row, uint64_t n_rows, uint64_t n_cols,
                     float mean, float spread, uint8_t* out) {
  constexpr size_t kBytes = F::kInfo.block_bytes;
  const float half_width = spread * 1.7320508f;  // a uniform distribution's
  for (uint64_t r = 0; r < n_rows; ++r) {
    const uint64_t row_seed = Mix(seed ^ Mix(first_row + r));
    for (uint64_t i = 0; i < n_cols; ++i, out += kBytes) {
      const float uniform = static_cast<float>(Mix(row_seed + i) >> 40) * 0x1p-23f - 1.0f;
      const float x = mean + half_width * uniform;
      if constexpr (kBytes == 4) {
        std::memcpy(out, &x, 4);
      } else {
        const uint16_t bits = F::kInfo.type_id == Bf16::kInfo.type_id
                                  ? static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16)
                                  : ToF16(x);
        std::memcpy(out, &bits, 2);
      }
    }
  }
}

}  // namespace

RandomRowsFn FindRandomRows(uint32_t type_id) {
  RandomRowsFn found = nullptr;
  ForEachFormat<FloatFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = RandomFloatRows<F>;
  });
  ForEachFormat<AllFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = RandomQuantRows<F>;
  });
  return found;
}

}  // namespace lutra
