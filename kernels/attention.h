// Causal attention of one token over a paged KV cache.
//
// A page holds kKvPage consecutive positions of every layer. Scores and sums are float fused multiply-adds in fixed order: dot
// products over 16 lanes, the online softmax (Milakov and Gimelshein 2018) page by page from position 0, values added position
// by position. So the result depends on neither the chunking of the prompt nor the batch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

inline constexpr size_t kKvPage = 128;  // positions a page

enum class KvType { kF32, kF16 };
constexpr size_t KvTypeBytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// Where one layer's keys and values of one head lie in a page, in bytes: K [kKvPage, head_dim_k], V [kKvPage, head_dim_v].
struct AttentionArgs {
  const uint8_t* const* pages;  // page p holds positions [p * kKvPage, ...)
  size_t k_offset, v_offset;    // of this layer and KV head
  KvType type;
  size_t head_dim_k, head_dim_v;
  size_t n_positions;           // attend to [0, n_positions), >= 1
  float scale;                  // of the scores
  const float* q;               // [n_heads, head_dim_k]: the query heads that share this KV head
  size_t n_heads;               // at most kMaxHeadsPerKv
  float* out;                   // [n_heads, head_dim_v]
};
inline constexpr size_t kMaxHeadsPerKv = 64;

// Disjoint outputs may be written concurrently. Uses kKvPage * n_heads floats of stack. Never throws.
void Attend(const AttentionArgs& args);

}  // namespace lutra
