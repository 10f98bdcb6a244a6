// The encoder of the ternary formats: y = d * t with t = -1, 0 or 1, one float d a block or a row.
//
// Under d, t is the sign of every weight that is further than d / 2 from 0: so the best choice takes the weights above some
// magnitude, and d is their mean. A histogram of magnitudes gives the loss of every such choice at once.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/formats/all.h"
#include "kernels/quantize/block_packer.h"
#include "kernels/quantize/row_encoder.h"
#include "kernels/quantize/super_scale.h"

namespace lutra {
namespace {

// Where a format with five digits a byte keeps weight i: the byte of the block and the digit, 0 the most significant.
struct Place {
  size_t byte, digit;
};
template <class F>
struct Digits;
template <>
struct Digits<Tq1_0> {
  static Place Of(size_t i) {
    if (i < 160) return {i % 32, i / 32};
    if (i < 240) return {32 + i % 16, (i - 160) / 16};
    return {48 + i % 4, (i - 240) / 4};
  }
};
template <>
struct Digits<Iq1Bn> {
  static Place Of(size_t i) {
    const size_t g = i / 16, k = i % 16;
    return k < 15 ? Place{3 * g + k / 5, 4 - k % 5} : Place{12, 4 - g};
  }
};

// t[i] + 1 for weights [0, kWeights) into the block.
template <class F>
void Pack(const uint8_t* digits, typename F::Block* block) {
  constexpr size_t kWeights = F::kInfo.block_weights;
  if constexpr (requires { Digits<F>::Of(0); }) {
    constexpr uint16_t kWorth[] = {81, 27, 9, 3, 1};
    std::array<uint16_t, sizeof(typename F::Block)> sums{};
    std::array<bool, sizeof(typename F::Block)> used{};
    for (size_t i = 0; i < kWeights; ++i) {
      const Place place = Digits<F>::Of(i);
      sums[place.byte] = static_cast<uint16_t>(sums[place.byte] + digits[i] * kWorth[place.digit]);
      used[place.byte] = true;
    }
    uint8_t* bytes = reinterpret_cast<uint8_t*>(block);
    for (size_t k = 0; k < sums.size(); ++k) {  // as a fraction of 243, rounded up
      if (used[k]) bytes[k] = static_cast<uint8_t>((sums[k] * 256 + 242) / 243);
    }
  } else {
    const auto& packer = BlockPacker<F>::Get();
    for (size_t i = 0; i < kWeights; ++i) packer.SetIndex(block, i, digits[i]);
  }
}

struct Fit {
  double d = 0.0, loss = 0.0, zero_loss = 0.0;
};

// The d of least loss for n weights.
Fit BestFit(const float* x, const float* w, size_t n) {
  constexpr size_t kBins = 256;
  float top = 0.0f;
  for (size_t i = 0; i < n; ++i) top = std::max(top, std::abs(x[i]));
  if (!(top > 1e-30f)) return {};
  struct Bin {
    double wx = 0.0, w = 0.0;
  };
  std::array<Bin, kBins> bins{};
  const float scale = static_cast<float>(kBins - 1) / top;
  for (size_t i = 0; i < n; ++i) {
    const float m = std::abs(x[i]);
    Bin& bin = bins[static_cast<size_t>(m * scale)];
    bin.wx += static_cast<double>(w[i] * m);
    bin.w += static_cast<double>(w[i]);
  }
  double wx = 0.0, ww = 0.0, gain = 0.0, d = 0.0, zero_loss = 0.0;
  for (size_t k = kBins; k-- > 0;) {
    wx += bins[k].wx;
    ww += bins[k].w;
    if (ww > 0.0 && wx * wx / ww > gain) {
      gain = wx * wx / ww;
      d = wx / ww;
    }
  }
  for (int k = 0; k < 2; ++k) {  // from the bin's edge to d / 2
    const float half = static_cast<float>(0.5 * d);
    wx = ww = zero_loss = 0.0;
    for (size_t i = 0; i < n; ++i) {
      const float m = std::abs(x[i]);
      const float taken = m > half ? w[i] : 0.0f;
      wx += static_cast<double>(taken * m);
      ww += static_cast<double>(taken);
      zero_loss += static_cast<double>(w[i] * m * m);
    }
    if (ww > 0.0) d = wx / ww;
  }
  return {d, zero_loss - wx * d, zero_loss};
}

template <QuantFormat F>
void EncodeTernaryRow(const float* x, const float* w, size_t n, int unit, uint8_t* out,
                      QuantizeScratch*) {
  using Super = SuperScale<F>;
  constexpr size_t kWeights = F::kInfo.block_weights;
  constexpr bool kRowSuper = F::kInfo.row_header_bytes != 0;
  std::memset(out, 0, F::kInfo.row_header_bytes + n / kWeights * sizeof(typename F::Block));
  auto* header = reinterpret_cast<typename F::RowHeader*>(out);
  auto* blocks = reinterpret_cast<typename F::Block*>(out + F::kInfo.row_header_bytes);
  const size_t run = kRowSuper ? n : kWeights;
  for (size_t begin = 0; begin < n; begin += run) {
    const Fit fit = BestFit(x + begin, w + begin, run);
    const float d = static_cast<float>(fit.d);
    if (d == 0.0f) continue;  // zeros
    for (size_t at = begin; at < begin + run; at += kWeights) {
      uint8_t digits[kWeights];
      for (size_t i = 0; i < kWeights; ++i) {
        const float v = x[at + i];
        digits[i] = static_cast<uint8_t>(1 + (v > 0.5f * d ? 1 : 0) - (v < -0.5f * d ? 1 : 0));
      }
      Pack<F>(digits, &blocks[at / kWeights]);
      Super::Store(header, &blocks[at / kWeights], d * LostGain(fit.loss, fit.zero_loss), unit);
    }
  }
}

}  // namespace

EncodeRowFn FindTernaryEncoder(uint32_t type_id) {
  EncodeRowFn found = nullptr;
  ForEachFormat<TernaryFormats>([&]<class F>() {
    if (F::kInfo.type_id == type_id) found = EncodeTernaryRow<F>;
  });
  return found;
}

}  // namespace lutra
