// Llama 1 to 3.3, Mistral, Mixtral, SmolLM2, TinyLlama, Yi, DeepSeek LLM and many others. Touvron et al. 2023; Jiang et al. 2024.
#include "models/arch/registry.h"

namespace lutra {

const ArchSpec kArchLlama = {
    .name = "llama",
    .rope = RopeKind::kAdjacent,
    .rope_spans_head = true,
    .rope_freqs = true,
    .experts = ArchSpec::Experts::kOptional,
    .normalize_experts = true,
};

}  // namespace lutra
