#include "kernels/pack.h"

#include <algorithm>
#include <cstring>
#include <utility>

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
  if (magnitude >= 0x7F800000)
    return static_cast<uint16_t>(sign | 0x7C00 | (magnitude >> 13 & 0x3FF));
  if (magnitude >= 0x38800000)
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000) >> 13));
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

// out[j] = the index of weight first + j of a block, for the weights of a unit. Everything but the innermost counter is constant, so that what
// F::Index computes from a weight's number folds away, and most formats become byte-wise vector code.
template <QuantFormat F, size_t kFirst>
void Indexes(const typename F::Block& block, uint8_t* __restrict out) {
  constexpr size_t kRun = 16;
  constexpr size_t kUnit = static_cast<size_t>(KindOf<F>().unit);
  [&]<size_t... kRuns>(std::index_sequence<kRuns...>) {
    const auto run = [&]<size_t kAt>(std::integral_constant<size_t, kAt>) {
      for (size_t j = 0; j < kRun; ++j)
        out[kAt + j] = static_cast<uint8_t>(F::Index(block, kFirst + kAt + j));
    };
    (run(std::integral_constant<size_t, kRun * kRuns>()), ...);
  }
  (std::make_index_sequence<kUnit / kRun>());
}

// Two quads of weights (8 bytes) in one, the second kShift bits above the first.
template <int kShift>
uint32_t Fold(uint64_t quads) {
  return static_cast<uint32_t>(quads | quads >> (32 - kShift));
}

// kBits bits, from bit kFrom on, of the 32 indexes of one row of a step: its part of kBits chunks.
template <int kFrom, int kBits>
void Plane(const uint8_t* index, uint32_t* chunks) {
  constexpr uint64_t kMask = ((1u << kBits) - 1) * uint64_t{0x0101010101010101};
  uint64_t pairs[4];
  std::memcpy(pairs, index, 32);
  if constexpr (kBits == 8) {
    std::memcpy(chunks, pairs, 32);
  } else {
    for (uint64_t& pair : pairs) pair = pair >> kFrom & kMask;
    if constexpr (kBits == 4) {
      for (size_t c = 0; c < 4; ++c) chunks[c] = Fold<4>(pairs[c]);
    } else if constexpr (kBits == 2) {
      for (size_t c = 0; c < 2; ++c) chunks[c] = Fold<2>(pairs[2 * c] | pairs[2 * c + 1] << 4);
    } else {
      static_assert(kBits == 1);
      chunks[0] = Fold<1>(pairs[0] | pairs[1] << 2 | pairs[2] << 4 | pairs[3] << 6);
    }
  }
}

// All indexes of a row in a unit to their places among the rows' of the unit's steps.
template <PanelKind kKind>
void PutSteps(const uint8_t* index, size_t row, uint8_t* steps) {
  constexpr int kLow = kKind.bits == 3 ? 2 : kKind.bits == 5 || kKind.bits == 6 ? 4 : kKind.bits;
  constexpr int kHigh = kKind.bits - kLow;
  for (size_t s = 0; s < kKind.steps(); ++s) {
    uint32_t chunks[kKind.bits];
    Plane<0, kLow>(index + 32 * s, chunks);
    if constexpr (kHigh > 0) Plane<kLow, kHigh>(index + 32 * s, chunks + kLow);
    for (size_t c = 0; c < kKind.bits; ++c) Put(steps + 64 * (s * kKind.bits + c), row, chunks[c]);
  }
}

// The fields of row r of the unit at p, from the weights [kFirst, kFirst + unit) of a block. What shares bytes with other rows is or-ed.
template <QuantFormat F, size_t kFirst>
void PackUnitRow(const typename F::RowHeader& row, const typename F::Block& block, size_t r,
                 uint8_t* p, uint16_t& shifted) {
  constexpr PanelKind kKind = KindOf<F>();
  uint8_t* supers = p;
  uint8_t* bias_supers = supers + kKind.super_bytes();
  uint8_t* scales = bias_supers + kKind.bias_super_bytes();
  uint8_t* biases = scales + kKind.scale_bytes();
  if constexpr (kKind.super != SuperKind::kRow)
    PutSuper<kKind.super>(supers, r, F::Super(row, block));
  if constexpr (kKind.bias) PutSuper<SuperKind::kF16>(bias_supers, r, F::BiasSuper(row, block));
  uint32_t shifts = 0;
  for (size_t g = 0; g < kKind.groups(); ++g) {
    const size_t group = kFirst / F::kGroup + g;
    if constexpr (kKind.scale_bits == 8) {
      scales[g * kPanelRows + r] = static_cast<uint8_t>(F::Scale(block, group));
      if constexpr (kKind.bias)
        biases[g * kPanelRows + r] = static_cast<uint8_t>(F::Bias(block, group));
    } else if constexpr (kKind.scale_bits == 4) {
      const size_t at = g / 2 * kPanelRows + r;
      scales[at] |=
          static_cast<uint8_t>((F::Scale(block, group) + kKind.scale_zero) << (g % 2 * 4));
      if constexpr (kKind.bias)
        biases[at] |= static_cast<uint8_t>(F::Bias(block, group) << (g % 2 * 4));
    }
    if constexpr (kKind.shift != 0) shifts |= static_cast<uint32_t>(F::Shifted(block, group)) << g;
  }
  shifted = static_cast<uint16_t>(shifts);
  uint8_t index[kKind.unit];
  Indexes<F, kFirst>(block, index);
  PutSteps<kKind>(index, r, p + kKind.header_bytes());
}

// Unit by unit, so that what 16 rows write scattered stays in the nearest cache.
template <QuantFormat F>
void PackPanel(const uint8_t* rows, size_t n_rows, size_t n_cols, size_t first_row,
               uint8_t* panel) {
  constexpr PanelKind kKind = KindOf<F>();
  constexpr size_t kUnit = static_cast<size_t>(kKind.unit);
  constexpr size_t kBlock = F::kInfo.block_weights;
  constexpr size_t kBlockBytes = sizeof(typename F::Block);
  constexpr size_t kHeader = F::kInfo.row_header_bytes;
  const size_t row_bytes = kHeader + n_cols / kBlock * kBlockBytes;
  const size_t n = std::min(kPanelRows, n_rows - first_row);
  const uint8_t* const first = rows + first_row * row_bytes;
  typename F::RowHeader headers[kPanelRows]{};
  typename F::Block block;
  if constexpr (kHeader != 0) {
    for (size_t r = 0; r < n; ++r) std::memcpy(&headers[r], first + r * row_bytes, kHeader);
  }
  if constexpr (kKind.super == SuperKind::kRow) {
    std::memset(panel, 0, kKind.panel_header_bytes());
    for (size_t r = 0; r < n; ++r) {
      std::memcpy(&block, first + r * row_bytes + kHeader, kBlockBytes);
      Put(panel, r, F::Super(headers[r], block));
    }
  }
  uint8_t* p = panel + kKind.panel_header_bytes();
  for (size_t k = 0; k < n_cols; k += kUnit) {
    // Rows past the last are zero: a scale of 0 makes whatever the indexes say vanish, exactly.
    std::memset(p, 0, n < kPanelRows ? kKind.unit_bytes() : kKind.header_bytes());
    uint16_t shifted[kPanelRows] = {};
    for (size_t r = 0; r < n; ++r) {
      const uint8_t* const at = first + r * row_bytes + kHeader + k / kBlock * kBlockBytes;
      std::memcpy(&block, at, kBlockBytes);
      // The same blocks of the next 16 rows: sixteen rows at once are more streams than hardware prefetchers follow. Past the end it is no
      // more than a hint.
      for (size_t i = 0; i < kBlockBytes; i += 64)
        __builtin_prefetch(at + kPanelRows * row_bytes + i);
      if constexpr (kBlock == kUnit) {
        PackUnitRow<F, 0>(headers[r], block, r, p, shifted[r]);
      } else {
        static_assert(kBlock == 2 * kUnit);
        if (k % kBlock == 0) {
          PackUnitRow<F, 0>(headers[r], block, r, p, shifted[r]);
        } else {
          PackUnitRow<F, kUnit>(headers[r], block, r, p, shifted[r]);
        }
      }
    }
    if constexpr (kKind.shift != 0) {
      uint8_t* const shifts = p + kKind.header_bytes() - kKind.shift_bytes();
      for (size_t g = 0; g < kKind.groups(); ++g) {
        uint32_t bits = 0;
        for (size_t r = 0; r < kPanelRows; ++r) bits |= (shifted[r] >> g & 1u) << r;
        Put(shifts, g, static_cast<uint16_t>(bits));
      }
    }
    p += kKind.unit_bytes();
  }
  std::memset(p, 0, static_cast<size_t>(panel + kKind.panel_bytes(n_cols) - p));
}

template <QuantFormat F>
constexpr std::array<uint8_t, 64> kLaneTable = LaneTable<F>();

template <QuantFormat F>
constexpr Packer kPacker{F::kActivations,
                         [](size_t n_cols) { return KindOf<F>().panel_bytes(n_cols); },
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
