// What tells one architecture from another: data, not code. An architecture is one file here and one row in registry.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/rope.h"

namespace lutra {

struct ArchSpec {
  const char* name;  // general.architecture, and the prefix of its keys
  RopeKind rope = RopeKind::kAdjacent;
  bool rope_spans_head = false;  // rope.dimension_count must equal the head size
  bool rope_freqs = false;       // the tensor rope_freqs.weight divides the frequencies (Llama 3.1)
  uint32_t no_rope_interval = 0;  // every n-th layer (the last of n) does not rotate; 0: all do
  bool qk_norm = false;           // RMSNorm over each head of q and k
  bool output_required = false;   // never tied to the embedding
  enum class Experts { kNever, kOptional, kAlways } experts = Experts::kNever;
  bool normalize_experts = false;  // the chosen experts' weights are made to sum to 1
  bool shared_expert = false;      // one more expert for every token, behind a sigmoid gate
  bool expert_ff_key =
      false;  // expert_feed_forward_length gives the experts' size (else feed_forward_length)
};

// nullptr if the name is not supported.
const ArchSpec* FindArch(std::string_view name);
std::span<const ArchSpec* const> AllArchs();

}  // namespace lutra
