// SmolLM3: Llama without rotation in every fourth layer.
#include "models/arch/registry.h"

namespace lutra {

const ArchSpec kArchSmolLm3 = {
    .name = "smollm3",
    .rope = RopeKind::kAdjacent,
    .no_rope_interval = 4,
};

}  // namespace lutra
