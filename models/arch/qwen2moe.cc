// Qwen1.5-MoE, Qwen2-57B-A14B: experts whose weights are not normalised, and a gated shared expert.
#include "models/arch/registry.h"

namespace lutra {

const ArchSpec kArchQwen2Moe = {
    .name = "qwen2moe",
    .rope = RopeKind::kHalves,
    .output_required = true,
    .experts = ArchSpec::Experts::kAlways,
    .shared_expert = true,
    .expert_ff_key = true,
};

}  // namespace lutra
