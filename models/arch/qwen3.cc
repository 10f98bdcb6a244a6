// Qwen3 dense: q and k are normalised head by head. Yang et al. 2025.
#include "models/arch/registry.h"

namespace lutra {

const ArchSpec kArchQwen3 = {
    .name = "qwen3",
    .rope = RopeKind::kHalves,
    .qk_norm = true,
};

}  // namespace lutra
