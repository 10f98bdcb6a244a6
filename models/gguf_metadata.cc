// Metadata values: conversion, text, typed access.
#include <charconv>
#include <cinttypes>
#include <cmath>
#include <iterator>
#include <limits>
#include <type_traits>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/quant_format.h"
#include "models/gguf.h"

namespace lutra {
namespace {

template <class T>
T At(const GgufValue& value, uint64_t i) {
  return LoadLe<T>(value.data + i * sizeof(T));
}

bool IsInteger(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kU16:
    case GgufType::kI16:
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kU64:
    case GgufType::kI64:
      return true;
    default:
      return false;
  }
}

bool IsFloat(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }

// Element i as T, nullopt if it does not fit.
template <class T>
std::optional<T> IntegerAt(const GgufValue& value, uint64_t i) {
  if (const std::optional<int64_t> v = value.AsInt(i)) {
    if constexpr (std::is_unsigned_v<T>) {
      if (*v < 0 || static_cast<uint64_t>(*v) > std::numeric_limits<T>::max()) return std::nullopt;
    } else {
      if (*v < std::numeric_limits<T>::min() || *v > std::numeric_limits<T>::max())
        return std::nullopt;
    }
    return static_cast<T>(*v);
  }
  if constexpr (std::is_same_v<T, uint64_t>) return value.AsUint(i);
  return std::nullopt;
}

// A finite value that float can hold (rounded); NaN otherwise.
float ToFloat(double v) {
  if (!(std::fabs(v) <= std::numeric_limits<float>::max()))
    return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>(v);
}

// The shortest digits that give the same number back.
template <class T>
std::string ShortestText(T v) {
  char text[64];
  return std::string(text, std::to_chars(text, text + sizeof(text), v).ptr);
}

template <class T>
std::optional<T> GetInteger(const GgufValue* value) {
  return value->is_array() || !IsInteger(value->type) ? std::nullopt : IntegerAt<T>(*value, 0);
}

}  // namespace

const char* GgufTypeName(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  const uint32_t i = static_cast<uint32_t>(type);
  return i < std::size(kNames) ? kNames[i] : "unknown";
}

uint64_t GgufTypeBytes(GgufType type) {
  constexpr uint8_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const uint32_t i = static_cast<uint32_t>(type);
  return i < std::size(kBytes) ? kBytes[i] : 0;
}

double GgufValue::AsDouble(uint64_t i) const {
  LUTRA_CHECK(i < count);
  switch (element_type) {
    case GgufType::kF32:
      return static_cast<double>(At<float>(*this, i));
    case GgufType::kF64:
      return At<double>(*this, i);
    case GgufType::kU64:
      return static_cast<double>(At<uint64_t>(*this, i));
    default:
      return static_cast<double>(AsInt(i).value_or(0));
  }
}

std::optional<int64_t> GgufValue::AsInt(uint64_t i) const {
  LUTRA_CHECK(i < count);
  switch (element_type) {
    case GgufType::kU8:
      return At<uint8_t>(*this, i);
    case GgufType::kI8:
      return At<int8_t>(*this, i);
    case GgufType::kU16:
      return At<uint16_t>(*this, i);
    case GgufType::kI16:
      return At<int16_t>(*this, i);
    case GgufType::kU32:
      return At<uint32_t>(*this, i);
    case GgufType::kI32:
      return At<int32_t>(*this, i);
    case GgufType::kI64:
      return At<int64_t>(*this, i);
    case GgufType::kBool:
      return At<uint8_t>(*this, i) != 0 ? 1 : 0;
    case GgufType::kU64: {
      const uint64_t v = At<uint64_t>(*this, i);
      if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(v);
    }
    case GgufType::kF32:
    case GgufType::kF64: {
      const double v = AsDouble(i);
      if (!(v >= -0x1p63 && v < 0x1p63) || v != std::floor(v)) return std::nullopt;
      return static_cast<int64_t>(v);
    }
    default:
      return std::nullopt;
  }
}

std::optional<uint64_t> GgufValue::AsUint(uint64_t i) const {
  LUTRA_CHECK(i < count);
  if (element_type == GgufType::kU64) return At<uint64_t>(*this, i);
  if (IsFloat(element_type)) {
    const double v = AsDouble(i);
    if (!(v >= 0 && v < 0x1p64) || v != std::floor(v)) return std::nullopt;
    return static_cast<uint64_t>(v);
  }
  const std::optional<int64_t> v = AsInt(i);
  if (!v || *v < 0) return std::nullopt;
  return static_cast<uint64_t>(*v);
}

std::string GgufValue::TypeText() const {
  if (!is_array()) return GgufTypeName(type);
  return Format("array of %" PRIu64 " %s", count, GgufTypeName(element_type));
}

std::string GgufValue::ToText(uint64_t max_elements, size_t max_string_bytes) const {
  const auto element = [&](uint64_t i) -> std::string {
    switch (element_type) {
      case GgufType::kString:
        return "\"" + Printable(strings[i], max_string_bytes) + "\"";
      case GgufType::kBool:
        return *AsInt(i) != 0 ? "true" : "false";
      case GgufType::kF32:
        return ShortestText(static_cast<float>(AsDouble(i)));
      case GgufType::kF64:
        return ShortestText(AsDouble(i));
      case GgufType::kU64:
        return Format("%" PRIu64, *AsUint(i));
      default:
        return Format("%" PRId64, AsInt(i).value_or(0));
    }
  };
  if (!is_array()) return element(0);
  std::string text = "[";
  for (uint64_t i = 0; i < count && i < max_elements; ++i) {
    if (i != 0) text += ", ";
    text += element(i);
  }
  if (count > max_elements) {
    text += Format("%s... %" PRIu64 " more", max_elements == 0 ? "" : ", ", count - max_elements);
  }
  return text + "]";
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto it = key_index_.find(key);
  return it == key_index_.end() ? nullptr : &metadata_[it->second].second;
}

void GgufFile::FailType(std::string_view key, const GgufValue& value, const char* wanted) const {
  Fail(ErrorCode::kCorrupt, "%s: metadata key '%s': wanted %s, found %s %s",
       Printable(path_, 400).c_str(), Printable(key, 80).c_str(), wanted, value.TypeText().c_str(),
       value.ToText(4, 60).c_str());
}

std::optional<uint32_t> GgufFile::GetU32(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const std::optional<uint32_t> v = GetInteger<uint32_t>(value);
  if (!v) FailType(key, *value, "an integer within [0, 4294967295]");
  return v;
}

std::optional<uint64_t> GgufFile::GetU64(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const std::optional<uint64_t> v = GetInteger<uint64_t>(value);
  if (!v) FailType(key, *value, "an integer of at least 0");
  return v;
}

std::optional<int32_t> GgufFile::GetI32(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const std::optional<int32_t> v = GetInteger<int32_t>(value);
  if (!v) FailType(key, *value, "an integer within [-2147483648, 2147483647]");
  return v;
}

std::optional<float> GgufFile::GetF32(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const float v =
      IsFloat(value->type) ? ToFloat(value->AsDouble()) : std::numeric_limits<float>::quiet_NaN();
  if (std::isnan(v)) FailType(key, *value, "a finite f32 or f64");
  return v;
}

std::optional<bool> GgufFile::GetBool(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kBool) FailType(key, *value, "a bool");
  return *value->AsInt() != 0;
}

std::optional<std::string_view> GgufFile::GetString(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) FailType(key, *value, "a string");
  return value->strings[0];
}

const std::vector<std::string_view>* GgufFile::GetStrings(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array() || value->element_type != GgufType::kString)
    FailType(key, *value, "an array of strings");
  return &value->strings;
}

std::optional<std::vector<float>> GgufFile::GetF32s(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array() || !IsFloat(value->element_type)) FailType(key, *value, "an array of f32");
  std::vector<float> out(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const double v = value->AsDouble(i);
    out[i] = std::isinf(v) ? (v < 0 ? -INFINITY : INFINITY) : ToFloat(v);
    if (std::isnan(out[i])) {
      FailType(key, *value,
               Format("f32 values that are numbers (element %" PRIu64 " is %g)", i, v).c_str());
    }
  }
  return out;
}

std::optional<std::vector<int32_t>> GgufFile::GetI32s(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array() || !IsInteger(value->element_type))
    FailType(key, *value, "an array of integers");
  std::vector<int32_t> out(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int32_t> v = IntegerAt<int32_t>(*value, i);
    if (!v)
      FailType(key, *value,
               Format("integers within the i32 range (element %" PRIu64 ")", i).c_str());
    out[i] = *v;
  }
  return out;
}

std::optional<std::vector<uint32_t>> GgufFile::GetU32PerLayer(std::string_view key,
                                                              size_t n) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!IsInteger(value->element_type) || (value->is_array() && value->count != n)) {
    FailType(key, *value,
             Format("an integer, or an array of %zu integers (one a layer)", n).c_str());
  }
  std::vector<uint32_t> out(n);
  for (size_t i = 0; i < n; ++i) {
    const uint64_t at = value->is_array() ? i : 0;
    const std::optional<uint32_t> v = IntegerAt<uint32_t>(*value, at);
    if (!v) {
      FailType(key, *value,
               Format("integers within [0, 4294967295] (element %" PRIu64 ")", at).c_str());
    }
    out[i] = *v;
  }
  return out;
}

}  // namespace lutra
