// Qwen3-30B-A3B, -235B-A22B, Qwen3-Coder.
#include "models/arch/registry.h"

namespace lutra {

const ArchSpec kArchQwen3Moe = {
    .name = "qwen3moe",
    .rope = RopeKind::kHalves,
    .qk_norm = true,
    .experts = ArchSpec::Experts::kAlways,
    .normalize_experts = true,
    .expert_ff_key = true,
};

}  // namespace lutra
