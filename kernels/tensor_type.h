// The type ids of GGUF tensors and the sizes that follow from them.
// Source: GGUF specification; ik_llama.cpp's ids from 97 up. Ids are fixed by GGUF, never renumber.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lutra {

// A row of n weights takes row_header_bytes + n / block_weights * block_bytes bytes; rows follow
// without padding.
struct TensorTypeInfo {
  uint32_t id;
  const char* name;        // as GGUF tools print it: "Q4_K", "IQ4_KS", ...
  uint32_t block_weights;  // n must be a multiple of this
  uint32_t block_bytes;
  uint32_t row_header_bytes;
  bool readable;  // false: known by name and size, but no format here can decode it
};

// nullptr if the id is unknown, retired or foreign.
const TensorTypeInfo* FindTensorType(uint32_t id);
// Every known type, ascending ids.
std::span<const TensorTypeInfo> AllTensorTypes();
// For error messages: what an id that FindTensorType does not know is known as elsewhere, e.g.
// "IQ4_K_R4 (row-interleaved)"; nullptr if nobody we know of uses it.
const char* RetiredOrForeignTypeName(uint32_t id);

// Bytes of one row of `n` weights. `n` must be a multiple of block_weights. Wraps only for n above
// 2^58.
constexpr uint64_t RowBytes(const TensorTypeInfo& type, uint64_t n) {
  return type.row_header_bytes + n / type.block_weights * type.block_bytes;
}

}  // namespace lutra
