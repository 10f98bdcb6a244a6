#include "kernels/tensor_type.h"

#include <algorithm>
#include <array>

#include "kernels/formats/all.h"
#include "kernels/formats/float_formats.h"

namespace lutra {
namespace {

// Types whose tensors we can measure and skip, but not read.
constexpr std::array kUnreadable = std::to_array<TensorTypeInfo>({
    {24, "I8", 1, 1, 0, false},
    {25, "I16", 1, 2, 0, false},
    {26, "I32", 1, 4, 0, false},
    {27, "I64", 1, 8, 0, false},
    {28, "F64", 1, 8, 0, false},
    {40, "NVFP4", 64, 36, 0, false},
    {41, "Q1_0", 128, 18, 0, false},
    {42, "Q2_0", 64, 18, 0, false},
    {151, "Q8_KV", 32, 32, 8, false},
});

// A row for every format of the lists, and the unreadable ones, by ascending id.
constexpr auto kTypes = [] {
  constexpr size_t kReadable = std::tuple_size_v<FloatFormats> + std::tuple_size_v<AllFormats>;
  std::array<TensorTypeInfo, kReadable + kUnreadable.size()> types{};
  size_t n = 0;
  const auto add = [&]<class F>() {
    constexpr FormatInfo kInfo = F::kInfo;
    types[n++] = {kInfo.type_id,          kInfo.name, kInfo.block_weights, kInfo.block_bytes,
                  kInfo.row_header_bytes, true};
  };
  ForEachFormat<FloatFormats>(add);
  ForEachFormat<AllFormats>(add);
  for (const TensorTypeInfo& type : kUnreadable) types[n++] = type;
  std::sort(types.begin(), types.end(),
            [](const TensorTypeInfo& a, const TensorTypeInfo& b) { return a.id < b.id; });
  return types;
}();
static_assert(std::adjacent_find(kTypes.begin(), kTypes.end(),
                                 [](const TensorTypeInfo& a, const TensorTypeInfo& b) {
                                   return a.id == b.id;
                                 }) == kTypes.end(),
              "two formats claim one type id");

struct ForeignType {
  uint32_t id;
  const char* name;
};

// Ids that files may carry and that no table above has: for error messages only.
constexpr ForeignType kForeign[] = {
    // Retired; two projects gave 36 and, for a while, 37 and 38 a meaning.
    {4, "Q4_2 (retired)"},
    {5, "Q4_3 (retired)"},
    {31, "Q4_0_4_4 (retired)"},
    {32, "Q4_0_4_8 (retired)"},
    {33, "Q4_0_8_8 (retired)"},
    {36, "I2_S (BitNet) or IQ4_NL_4_4 (retired)"},
    {37, "IQ4_NL_4_8 (retired)"},
    {38, "IQ4_NL_8_8 (retired)"},
    {142, "IQ2_TN (retired)"},
    {143, "IQ1_TN (retired)"},
    // Quantized activations: no file should have them.
    {9, "Q8_1 (an activation format)"},
    {15, "Q8_K (an activation format)"},
    {97, "Q8_0_X4 (an activation format)"},
    {98, "Q8_1_X4 (an activation format)"},
    {99, "Q8_2_X4 (an activation format)"},
    {136, "Q8_K64 (an activation format)"},
    {147, "Q8_K16 (an activation format)"},
    {148, "Q8_K32 (an activation format)"},
    {149, "Q8_KR8 (an activation format)"},
    {150, "Q8_K128 (an activation format)"},
    // ik_llama.cpp's row-interleaved forms: the bytes of 4, 8 or 16 rows woven together.
    {202, "Q4_0_R8 (row-interleaved)"},
    {206, "Q5_0_R4 (row-interleaved)"},
    {208, "Q8_0_R8 (row-interleaved)"},
    {210, "Q2_K_R4 (row-interleaved)"},
    {211, "Q3_K_R4 (row-interleaved)"},
    {212, "Q4_K_R4 (row-interleaved)"},
    {213, "Q5_K_R4 (row-interleaved)"},
    {214, "Q6_K_R4 (row-interleaved)"},
    {216, "IQ2_XXS_R4 (row-interleaved)"},
    {217, "IQ2_XS_R4 (row-interleaved)"},
    {218, "IQ3_XXS_R4 (row-interleaved)"},
    {219, "IQ1_S_R4 (row-interleaved)"},
    {220, "IQ4_NL_R4 (row-interleaved)"},
    {221, "IQ3_S_R4 (row-interleaved)"},
    {222, "IQ2_S_R4 (row-interleaved)"},
    {223, "IQ4_XS_R8 (row-interleaved)"},
    {229, "IQ1_M_R4 (row-interleaved)"},
    {230, "BF16_R16 (row-interleaved)"},
    {233, "Q6_0_R4 (row-interleaved)"},
    {335, "IQ2_BN_R4 (row-interleaved)"},
    {337, "IQ2_K_R4 (row-interleaved)"},
    {338, "IQ3_K_R4 (row-interleaved)"},
    {339, "IQ4_K_R4 (row-interleaved)"},
    {340, "IQ5_K_R4 (row-interleaved)"},
    {344, "IQ4_KS_R4 (row-interleaved)"},
    {352, "IQ5_KS_R4 (row-interleaved)"},
    {353, "MXFP4_R8 (row-interleaved)"},
    {397, "Q8_K_R16 (row-interleaved)"},
    {398, "Q8_KV_R8 (row-interleaved)"},
    {399, "Q8_K_R8 (row-interleaved)"},
};
static_assert(std::none_of(std::begin(kForeign), std::end(kForeign),
                           [](const ForeignType& f) {
                             return std::any_of(
                                 kTypes.begin(), kTypes.end(),
                                 [&](const TensorTypeInfo& type) { return type.id == f.id; });
                           }),
              "a known type is listed as foreign");

}  // namespace

const TensorTypeInfo* FindTensorType(uint32_t id) {
  const auto* it = std::lower_bound(kTypes.begin(), kTypes.end(), id,
                                    [](const TensorTypeInfo& t, uint32_t i) { return t.id < i; });
  return it != kTypes.end() && it->id == id ? it : nullptr;
}

std::span<const TensorTypeInfo> AllTensorTypes() { return kTypes; }

const char* RetiredOrForeignTypeName(uint32_t id) {
  for (const ForeignType& type : kForeign) {
    if (type.id == id) return type.name;
  }
  return nullptr;
}

}  // namespace lutra
