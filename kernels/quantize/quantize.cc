#include "kernels/quantize/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "kernels/formats/float_formats.h"
#include "kernels/quantize/row_encoder.h"
#include "kernels/quantize/super_scale.h"
#include "kernels/tensor_type.h"

namespace lutra {
namespace {

EncodeRowFn FindRowEncoder(uint32_t type_id) {
  for (const auto find : {FindLegacyEncoder, FindKEncoder, FindIqkEncoder, FindCodebookEncoder, FindTrellisEncoder,
                          FindTernaryEncoder}) {
    if (const EncodeRowFn fn = find(type_id)) return fn;
  }
  return nullptr;
}

bool IsFloat(uint32_t type_id) {
  return type_id == F32::kInfo.type_id || type_id == F16::kInfo.type_id || type_id == Bf16::kInfo.type_id;
}

// Round to nearest even; x is finite, so is the result.
uint16_t NearestBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((rounded & 0x7FFF) >= 0x7F80 ? rounded - 1 : rounded);
}

void ConvertRow(uint32_t type_id, std::span<const float> x, uint8_t* out) {
  if (type_id == F32::kInfo.type_id) {
    std::memcpy(out, x.data(), x.size_bytes());
    return;
  }
  const bool half = type_id == F16::kInfo.type_id;
  for (size_t i = 0; i < x.size(); ++i) StoreLe16(out + 2 * i, half ? NearestF16(x[i]) : NearestBf16(x[i]));
}

// No column counts less than this part of the mean: what an importance matrix has not seen may still be met.
constexpr float kLeastImportance = 1e-4f;

}  // namespace

struct RowQuantizer::State {
  const TensorTypeInfo* type = nullptr;
  EncodeRowFn encode = nullptr;  // nullptr: a float type
  DequantizeFn dequantize = nullptr;
  QuantizeScratch scratch;
  std::vector<float> decoded;
};

bool CanQuantize(uint32_t type_id) { return IsFloat(type_id) || FindRowEncoder(type_id) != nullptr; }

bool WantsImportance(uint32_t type_id) {
  const TensorTypeInfo* type = FindTensorType(type_id);
  return type != nullptr && type->block_weights == 256 && 8.0 * type->block_bytes / type->block_weights < 2.15 && CanQuantize(type_id);
}

RowQuantizer::RowQuantizer(uint32_t type_id) : state_(std::make_unique<State>()) {
  state_->type = FindTensorType(type_id);
  state_->encode = FindRowEncoder(type_id);
  state_->dequantize = FindDequantizer(type_id);
  if (state_->type == nullptr || (state_->encode == nullptr && !IsFloat(type_id))) {
    Fail(ErrorCode::kUnsupported, "tensor type %s cannot be written",
         state_->type == nullptr ? Format("%u", type_id).c_str() : state_->type->name);
  }
}
RowQuantizer::~RowQuantizer() = default;
RowQuantizer::RowQuantizer(RowQuantizer&&) noexcept = default;
RowQuantizer& RowQuantizer::operator=(RowQuantizer&&) noexcept = default;

bool RowQuantizer::Quantize(std::span<const float> x, std::span<const float> importance, uint8_t* out) {
  State& s = *state_;
  const size_t n = x.size();
  const size_t row_bytes = RowBytes(*s.type, n);
  float amax = 0.0f;
  bool finite = true;
  for (const float v : x) {
    finite = finite && std::isfinite(v);
    amax = std::max(amax, std::abs(v));
  }
  if (!finite || amax == 0.0f) {
    std::memset(out, 0, row_bytes);
    return finite;
  }
  if (s.encode == nullptr) {
    ConvertRow(s.type->id, x, out);
    return true;
  }
  // In units of a power of two no square leaves the range of floats. An f16 scale must hold what is left of the largest.
  const int unit = std::ilogb(amax);
  s.scratch.x.resize(n);
  s.scratch.w.resize(n);
  const double inv_unit = std::ldexp(1.0, -unit);
  for (size_t i = 0; i < n; ++i) s.scratch.x[i] = static_cast<float>(static_cast<double>(x[i]) * inv_unit);
  double mean = 0.0;
  for (const float v : importance) mean += static_cast<double>(v);
  const bool weighted = mean > 0.0;
  if (weighted) {
    mean /= static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) {
      s.scratch.w[i] = static_cast<float>(std::min(static_cast<double>(importance[i]) / mean, 1e6)) + kLeastImportance;
    }
  } else {
    std::fill(s.scratch.w.begin(), s.scratch.w.end(), 1.0f);
  }
  s.encode(s.scratch.x.data(), s.scratch.w.data(), n, unit, out, &s.scratch);

  // What will be read must be finite and no worse than zeros.
  s.decoded.resize(n);
  const auto useful = [&] {
    s.dequantize(out, n, s.decoded.data());
    double error = 0.0, zero_error = 0.0;
    for (size_t i = 0; i < n; ++i) {
      const double v = static_cast<double>(x[i]) * inv_unit;
      const double r = v - static_cast<double>(s.decoded[i]) * inv_unit;
      error += r * r;
      zero_error += v * v;
    }
    return error <= zero_error;  // false for a NaN
  };
  if (useful()) return true;
  if (weighted) {
    std::fill(s.scratch.w.begin(), s.scratch.w.end(), 1.0f);
    s.encode(s.scratch.x.data(), s.scratch.w.data(), n, unit, out, &s.scratch);
    if (useful()) return true;
  }
  std::memset(out, 0, row_bytes);
  return true;
}

}  // namespace lutra
