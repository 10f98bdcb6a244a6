// Which tensor gets which type: the mixes that quantization tools know by name, and what they fall back to.
// Source: ik_llama.cpp src/llama-quantize.cpp, as facts (which tensor gets which type under which name).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor_type.h"
#include "models/gguf.h"

namespace lutra {

// A name that `lutra quantize` takes for a whole file: every type is one, and some are mixes.
struct QuantizeMix {
  const char* name;
  uint32_t file_type;     // general.file_type of such files
  uint32_t default_type;  // of the tensors that no rule names
};

// By name (letter case does not matter); nullptr if there is none.
const QuantizeMix* FindQuantizeMix(std::string_view name);
std::span<const QuantizeMix> AllQuantizeMixes();
// A tensor type by name that can be written; nullptr otherwise.
const TensorTypeInfo* FindWritableType(std::string_view name);
// "F32 F16 BF16 Q4_0 ...": for messages.
std::string WritableTypeNames();

// False for what is never quantized: vectors, norms, routers, integers.
bool IsQuantizable(const GgufTensor& tensor);
// output.weight, or token_embd.weight of a file without one.
bool IsOutput(const GgufFile& file, const GgufTensor& tensor);
bool IsEmbedding(const GgufTensor& tensor);

// `wanted`, or the type that takes its place for rows of n weights which are no multiple of its block.
const TensorTypeInfo* FallbackForRows(const TensorTypeInfo* wanted, uint64_t n);

// The types of a mix, tensor by tensor in file order (some rules count).
class MixRules {
 public:
  // Throws Error(kCorrupt) if the file lacks what rules depend on (layers, heads).
  MixRules(const QuantizeMix& mix, const GgufFile& file, bool has_imatrix);
  // The type of the next tensor, which must be quantizable. Not yet FallbackForRows.
  uint32_t Next(const GgufTensor& tensor);

 private:
  uint32_t OutputType() const;
  uint32_t LowBitType(std::string_view name);
  uint32_t AttentionValueType();
  uint32_t AttentionOutputType() const;
  uint32_t DownType(uint32_t layer) const;
  bool Is(std::initializer_list<std::string_view> names) const;

  const QuantizeMix& mix_;
  bool has_imatrix_;
  bool tied_;
  uint32_t n_layer_, n_expert_, n_vocab_, n_attn_v_ = 0;
  double gqa_;
  bool is_70b_, is_8b_;
  uint32_t seen_attn_v_ = 0, seen_down_ = 0, seen_gate_ = 0, seen_up_ = 0;
};

}  // namespace lutra
