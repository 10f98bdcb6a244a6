// A model's sizes and constants, read from GGUF metadata and checked. Names are the GGUF world's; the Hugging Face config.json name
// stands behind each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/rope.h"
#include "models/arch/arch.h"
#include "models/gguf.h"

namespace lutra {

// Sizes that may differ from layer to layer.
struct LayerHparams {
  uint32_t n_head;     // attention.head_count        num_attention_heads
  uint32_t n_head_kv;  // attention.head_count_kv     num_key_value_heads
  uint32_t n_ff;       // feed_forward_length         intermediate_size
};

struct Hparams {
  const ArchSpec* arch;
  uint32_t n_ctx_train;    // context_length                    max_position_embeddings
  uint32_t n_embd;         // embedding_length                  hidden_size
  uint32_t n_layer;        // block_count                       num_hidden_layers
  uint32_t n_vocab;        // length of tokenizer.ggml.tokens   vocab_size
  uint32_t head_dim_k;     // attention.key_length              head_dim
  uint32_t head_dim_v;     // attention.value_length            head_dim
  float rms_eps;           // attention.layer_norm_rms_epsilon  rms_norm_eps
  uint32_t n_expert;       // expert_count                      num_experts, num_local_experts
  uint32_t n_expert_used;  // expert_used_count                 num_experts_per_tok
  uint32_t n_ff_exp;       // expert_feed_forward_length        moe_intermediate_size
  uint32_t n_ff_shexp;     // expert_shared_feed_forward_length shared_expert_intermediate_size
  RopeParams rope;         // rope.*                            rope_theta, rope_scaling
  std::vector<LayerHparams> layers;  // [n_layer]
};

// Limits of what a file may ask for; generous against any published model.
inline constexpr uint32_t kMaxLayers = 512;
inline constexpr uint32_t kMaxExperts = 512;
inline constexpr uint32_t kMaxWidth = 1u << 20;  // n_embd, n_ff, heads * head size
inline constexpr uint32_t kMaxHeadDim = 1024;
inline constexpr uint32_t kMaxHeads = 4096;
// What scaling may multiply rotary angles by (published models divide them): 2^24 positions times this is the range of SinCos.
inline constexpr float kMaxRopeScale = 8;

// Throws Error(kUnsupported) for architectures we do not have (naming those we do), kCorrupt naming file, key and value.
Hparams ReadHparams(const GgufFile& file);

}  // namespace lutra
