// Qwen1.5, Qwen2, Qwen2.5, QwQ, DeepSeek-R1-Distill-Qwen. Yang et al. 2024.
#include "models/arch/registry.h"

namespace lutra {

const ArchSpec kArchQwen2 = {
    .name = "qwen2",
    .rope = RopeKind::kHalves,
};

}  // namespace lutra
