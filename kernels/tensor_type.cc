#include "kernels/tensor_type.h"

#include <algorithm>

namespace lutra {
namespace {

// id, name, weights per block, bytes per block, bytes of the row header, readable. Ascending ids.
constexpr TensorTypeInfo kTypes[] = {
    {0, "F32", 1, 4, 0, true},
    {1, "F16", 1, 2, 0, true},
    {2, "Q4_0", 32, 18, 0, true},
    {3, "Q4_1", 32, 20, 0, true},
    {6, "Q5_0", 32, 22, 0, true},
    {7, "Q5_1", 32, 24, 0, true},
    {8, "Q8_0", 32, 34, 0, true},
    {10, "Q2_K", 256, 84, 0, true},
    {11, "Q3_K", 256, 110, 0, true},
    {12, "Q4_K", 256, 144, 0, true},
    {13, "Q5_K", 256, 176, 0, true},
    {14, "Q6_K", 256, 210, 0, true},
    {16, "IQ2_XXS", 256, 66, 0, true},
    {17, "IQ2_XS", 256, 74, 0, true},
    {18, "IQ3_XXS", 256, 98, 0, true},
    {19, "IQ1_S", 256, 50, 0, true},
    {20, "IQ4_NL", 32, 18, 0, true},
    {21, "IQ3_S", 256, 110, 0, true},
    {22, "IQ2_S", 256, 82, 0, true},
    {23, "IQ4_XS", 256, 136, 0, true},
    {24, "I8", 1, 1, 0, false},
    {25, "I16", 1, 2, 0, false},
    {26, "I32", 1, 4, 0, false},
    {27, "I64", 1, 8, 0, false},
    {28, "F64", 1, 8, 0, false},
    {29, "IQ1_M", 256, 56, 0, true},
    {30, "BF16", 1, 2, 0, true},
    {34, "TQ1_0", 256, 54, 0, true},
    {35, "TQ2_0", 256, 66, 0, true},
    {39, "MXFP4", 32, 17, 0, true},
    {40, "NVFP4", 64, 36, 0, false},
    {41, "Q1_0", 128, 18, 0, false},
    {42, "Q2_0", 64, 18, 0, false},
    {133, "Q6_0", 32, 26, 0, true},
    {134, "IQ1_BN", 64, 13, 2, true},
    {135, "IQ2_BN", 64, 16, 4, true},
    {137, "IQ2_K", 256, 76, 0, true},
    {138, "IQ3_K", 256, 110, 0, true},
    {139, "IQ4_K", 256, 144, 0, true},
    {140, "IQ5_K", 256, 176, 0, true},
    {141, "IQ6_K", 256, 212, 0, true},
    {144, "IQ4_KS", 256, 136, 4, true},
    {145, "IQ2_KS", 256, 70, 2, true},
    {146, "IQ4_KSS", 256, 128, 4, true},
    {151, "Q8_KV", 32, 32, 8, false},
    {152, "IQ5_KS", 256, 168, 4, true},
    {153, "IQ2_KT", 256, 68, 4, true},
    {154, "IQ3_KT", 256, 100, 4, true},
    {155, "IQ4_KT", 256, 128, 4, true},
    {156, "IQ3_KS", 256, 102, 2, true},
    {157, "IQ2_KL", 256, 86, 2, true},
    {158, "IQ1_KT", 256, 56, 4, true},
};

}  // namespace

const TensorTypeInfo* FindTensorType(uint32_t id) {
  const auto* it = std::lower_bound(std::begin(kTypes), std::end(kTypes), id,
                                    [](const TensorTypeInfo& t, uint32_t i) { return t.id < i; });
  return it != std::end(kTypes) && it->id == id ? it : nullptr;
}

std::span<const TensorTypeInfo> AllTensorTypes() { return kTypes; }

}  // namespace lutra
