#include "kernels/pack.h"

#include <cstring>

#include "kernels/formats/all.h"
#include "kernels/panel.h"

namespace lutra {
namespace {

template <class T>
void Put(uint8_t* at, size_t i, T v) {
  std::memcpy(at + i * sizeof(T), &v, sizeof(T));
}

// Exact by the format's kSuper (tests/kernels/formats_test.cc). Values are f16 by origin, so the inverse is exact.
uint16_t F32ToF16Exact(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude >= 0x7F800000) return static_cast<uint16_t>(sign | 0x7C00 | (magnitude >> 13 & 0x3FF));
  if (magnitude >= 0x38800000) return static_cast<uint16_t>(sign | ((magnitude - 0x38000000) >> 13));
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;  // subnormal f16
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(scaled));
}

template <SuperKind kSuper>
void PutSuper(uint8_t* at, size_t row, float v) {
  if constexpr (kSuper == SuperKind::kF16) {
    Put(at, row, F32ToF16Exact(v));
  } else if constexpr (kSuper == SuperKind::kBf16) {
    Put(at, row, static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16));
  } else {
    Put(at, row, v);
  }
}

// ORs the 32 indexes of one row of a step into its planes.
template <PanelKind kKind>
void PutStep(uint8_t* step, size_t row, const uint8_t* index) {
  constexpr int kLow = kKind.bits == 3 ? 2 : kKind.bits == 5 || kKind.bits == 6 ? 4 : kKind.bits;
  constexpr int kHigh = kKind.bits - kLow;
  constexpr uint32_t kLowMask = kLow == 8 ? 0xFFFFFFFF : ((1u << kLow) - 1) * 0x01010101u;
  uint32_t quads[8];
  std::memcpy(quads, index, 32);
  uint32_t low[kLow] = {};  // kLow chunks of this row
  for (size_t q = 0; q < 8; ++q) {
    low[q * kLow / 8] |= (quads[q] & kLowMask) << (q * kLow % 8);
  }
  for (size_t c = 0; c < kLow; ++c) std::memcpy(step + 64 * c + 4 * row, &low[c], 4);
  if constexpr (kHigh > 0) {
    constexpr uint32_t kHighMask = ((1u << kHigh) - 1) * 0x01010101u;
    uint32_t high[kHigh] = {};
    for (size_t q = 0; q < 8; ++q) {
      high[q * kHigh / 8] |= (quads[q] >> kLow & kHighMask) << (q * kHigh % 8);
    }
    for (size_t c = 0; c < kHigh; ++c) std::memcpy(step + 64 * (kLow + c) + 4 * row, &high[c], 4);
  }
}

template <QuantFormat F>
void PackRow(const uint8_t* row_bytes, size_t n_cols, size_t r, uint8_t* panel) {
  constexpr PanelKind kKind = KindOf<F>();
  constexpr size_t kUnit = static_cast<size_t>(kKind.unit);
  constexpr size_t kBlock = F::kInfo.block_weights;
  typename F::RowHeader row{};
  if constexpr (F::kInfo.row_header_bytes != 0) std::memcpy(&row, row_bytes, F::kInfo.row_header_bytes);
  const uint8_t* blocks = row_bytes + F::kInfo.row_header_bytes;
  typename F::Block block;
  if constexpr (kKind.super == SuperKind::kRow) {
    std::memcpy(&block, blocks, sizeof block);
    Put(panel, r, F::Super(row, block));
  }
  uint8_t* p = panel + kKind.panel_header_bytes();
  for (size_t k = 0; k < n_cols; k += kUnit) {
    std::memcpy(&block, blocks + k / kBlock * sizeof block, sizeof block);
    const size_t in_block = k % kBlock;  // units may be smaller than blocks
    uint8_t* supers = p;
    uint8_t* bias_supers = supers + kKind.super_bytes();
    uint8_t* scales = bias_supers + kKind.bias_super_bytes();
    uint8_t* biases = scales + kKind.scale_bytes();
    uint8_t* shifts = biases + kKind.bias_bytes();
    if constexpr (kKind.super != SuperKind::kRow) PutSuper<kKind.super>(supers, r, F::Super(row, block));
    if constexpr (kKind.bias) PutSuper<SuperKind::kF16>(bias_supers, r, F::BiasSuper(row, block));
    for (size_t g = 0; g < kKind.groups(); ++g) {
      const size_t group = in_block / F::kGroup + g;
      if constexpr (kKind.scale_bits == 8) {
        scales[g * kPanelRows + r] = static_cast<uint8_t>(F::Scale(block, group));
        if constexpr (kKind.bias) biases[g * kPanelRows + r] = static_cast<uint8_t>(F::Bias(block, group));
      } else if constexpr (kKind.scale_bits == 4) {
        const size_t at = g / 2 * kPanelRows + r;
        scales[at] |= static_cast<uint8_t>((F::Scale(block, group) + kKind.scale_zero) << (g % 2 * 4));
        if constexpr (kKind.bias) biases[at] |= static_cast<uint8_t>(F::Bias(block, group) << (g % 2 * 4));
      }
      if constexpr (kKind.shift != 0) {
        uint16_t bits;
        std::memcpy(&bits, shifts + 2 * g, 2);
        bits = static_cast<uint16_t>(bits | (F::Shifted(block, group) ? 1u << r : 0u));
        std::memcpy(shifts + 2 * g, &bits, 2);
      }
    }
    uint8_t index[kUnit];
    for (size_t i = 0; i < kUnit; ++i) index[i] = static_cast<uint8_t>(F::Index(block, in_block + i));
    for (size_t s = 0; s < kKind.steps(); ++s) {
      PutStep<kKind>(p + kKind.header_bytes() + s * kKind.step_bytes(), r, index + 32 * s);
    }
    p += kKind.unit_bytes();
  }
}

template <QuantFormat F>
void PackPanel(const uint8_t* rows, size_t n_rows, size_t n_cols, size_t first_row, uint8_t* panel) {
  // Zero rows: a scale of 0 makes whatever the indexes say vanish, exactly.
  std::memset(panel, 0, KindOf<F>().panel_bytes(n_cols));
  const size_t row_bytes = F::kInfo.row_header_bytes + n_cols / F::kInfo.block_weights * sizeof(typename F::Block);
  for (size_t r = 0; r < kPanelRows && first_row + r < n_rows; ++r) {
    PackRow<F>(rows + (first_row + r) * row_bytes, n_cols, r, panel);
  }
}

template <QuantFormat F>
constexpr std::array<uint8_t, 64> kLaneTable = LaneTable<F>();

template <QuantFormat F>
constexpr Packer kPacker{F::kActivations, [](size_t n_cols) { return KindOf<F>().panel_bytes(n_cols); },
                         kLaneTable<F>.data(), &PackPanel<F>};

}  // namespace

const Packer* FindPacker(uint32_t type_id) {
  const Packer* found = nullptr;
  ForEachFormat<AllFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = &kPacker<F>;
  });
  return found;
}

}  // namespace lutra
