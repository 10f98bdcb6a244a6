// What a quantization format *is*. Kernels, packers and tests are written once against this concept; a format is one header
// in kernels/formats/ and one name in kernels/formats/all.h.
//
//   value(i) = (Super * Scale(g)) * Lane(i)  [ + BiasSuper * Bias(g) ]         g = i / kGroup
//   Lane(i)  = kTable[Index(i)] + (Shifted(g) ? kShift : 0)   formats with a table (kTable not empty), or
//            = Index(i) - kZero                                formats without
//
// Super and BiasSuper are floats of the block (or of the row), everything else is an integer: the products of a block are
// summed exactly (kernels/exact.h). The scalar functions here are the definition: dequantization, packing, kernels and
// encoders are all tested against them, bit for bit.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lutra {

struct FormatInfo {
  const char* name;        // as GGUF tools print it
  uint32_t type_id;        // fixed by GGUF, never renumber
  uint32_t block_weights;  // 256, 64 or 32 (1: a plain float type)
  uint32_t block_bytes;
  uint32_t row_header_bytes;  // bytes in front of each row's blocks
};

// Which quantized activations a format meets: one scale per 256 for formats with integer block scales, one per 32 for
// formats whose float scale is per 32 (their weights deserve the finer activations).
enum class Activations { kQ8x256, kQ8x32 };

// How Super can be stored without loss: per block as f16, bf16 or f32, or once per row as f32.
enum class SuperKind { kF16, kBf16, kF32, kRow };

struct NoRowHeader {};

template <class F>
concept QuantFormat = requires(const typename F::RowHeader& row, const typename F::Block& block,
                               size_t i, size_t g) {
  { F::kInfo } -> std::convertible_to<FormatInfo>;
  { F::kActivations } -> std::convertible_to<Activations>;
  { F::kSuper } -> std::convertible_to<SuperKind>;
  { F::kGroup } -> std::convertible_to<size_t>;         // weights that share one Scale: 16 or 32
  { F::kBits } -> std::convertible_to<int>;             // bits of Index: 2, 3, 4, 5, 6 or 8
  { F::kTable.size() } -> std::convertible_to<size_t>;  // 0 or 1 << kBits entries, int8
  {
    F::kZero
    } -> std::convertible_to<int>;  // what Index means zero, where there is no table (8 bits: 128)
  {
    F::kShift
    } -> std::convertible_to<int>;  // what the second table adds to the first; 0: one table
  { F::kHasBias } -> std::convertible_to<bool>;
  {
    F::kScaleBits
    } -> std::convertible_to<
        int>;  // 8, or 4: Scale + kScaleZero and Bias fit a nibble, or 0: always 1
  { F::kScaleZero } -> std::convertible_to<int>;
  { F::Super(row, block) } -> std::same_as<float>;
  { F::Scale(block, g) } -> std::same_as<int>;  // within [-128, 127]
  { F::Index(block, i) } -> std::same_as<int>;  // within [0, 1 << kBits)
  { F::Shifted(block, g) } -> std::same_as<bool>;
  { F::BiasSuper(row, block) } -> std::same_as<float>;
  { F::Bias(block, g) } -> std::same_as<int>;  // within [0, 63]
};

// Defaults that most formats inherit.
struct FormatBase {
  using RowHeader = NoRowHeader;
  static constexpr Activations kActivations = Activations::kQ8x256;
  static constexpr SuperKind kSuper = SuperKind::kF16;
  static constexpr std::array<int8_t, 0> kTable{};
  static constexpr int kZero = 0;
  static constexpr int kShift = 0;
  static constexpr bool kHasBias = false;
  static constexpr int kScaleBits = 8;  // 0 where Scale() is always 1 (and Bias() too)
  static constexpr int kScaleZero = 0;
  static bool Shifted(const auto&, size_t) { return false; }
  static float BiasSuper(const auto&, const auto&) { return 0.0f; }
  static int Bias(const auto&, size_t) { return 0; }
};

template <QuantFormat F>
int Lane(const typename F::Block& block, size_t i) {
  if constexpr (F::kTable.size() != 0) {
    return F::kTable[static_cast<size_t>(F::Index(block, i))] +
           (F::Shifted(block, i / F::kGroup) ? F::kShift : 0);
  } else {
    return F::Index(block, i) - F::kZero;
  }
}

// The weight as the format defines it, every product rounded to float in the order of the brackets above.
template <QuantFormat F>
float Value(const typename F::RowHeader& row, const typename F::Block& block, size_t i) {
  const size_t g = i / F::kGroup;
  float y = (F::Super(row, block) * static_cast<float>(F::Scale(block, g))) *
            static_cast<float>(Lane<F>(block, i));
  if constexpr (F::kHasBias) {
    y = y + F::BiasSuper(row, block) * static_cast<float>(F::Bias(block, g));
  }
  return y;
}

// ---- Little helpers of the format headers: unaligned little-endian fields and bit fields. ----

// IEEE binary16 bits to float, exactly, subnormals included (weight scales are often subnormal).
inline float F16ToF32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7FFF;
  if (magnitude >= 0x7C00) {  // infinity, NaN
    return std::bit_cast<float>(sign | 0x7F800000 | ((magnitude & 0x3FF) << 13));
  }
  if (magnitude >= 0x0400) {
    return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000));
  }
  // Subnormal: magnitude * 2^-24, exact in float.
  const float f = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(f));
}
inline float Bf16ToF32(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

template <class T>
T LoadLe(const uint8_t* p) {
  static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}
inline float LoadF16(const uint8_t* p) { return F16ToF32(LoadLe<uint16_t>(p)); }

// Bases of the formats whose super-scale is one float in front of the row: the whole row header.
struct RowScaleF16 : FormatBase {
  struct RowHeader {
    uint8_t d[2];
  };
  static constexpr SuperKind kSuper = SuperKind::kRow;
  static float Super(const RowHeader& row, const auto&) { return LoadF16(row.d); }
};
struct RowScaleF32 : FormatBase {
  struct RowHeader {
    uint8_t d[4];
  };
  static constexpr SuperKind kSuper = SuperKind::kRow;
  static float Super(const RowHeader& row, const auto&) { return LoadLe<float>(row.d); }
};

constexpr int Nibble(uint32_t x, size_t k) { return static_cast<int>((x >> (4 * k)) & 15); }
constexpr int TwoBits(uint32_t x, size_t k) { return static_cast<int>((x >> (2 * k)) & 3); }
constexpr int ThreeBits(uint32_t x, size_t k) { return static_cast<int>((x >> (3 * k)) & 7); }
constexpr int Bit(uint32_t x, size_t k) { return static_cast<int>((x >> k) & 1); }

}  // namespace lutra
