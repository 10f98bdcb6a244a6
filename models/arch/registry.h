// The rows of registry.cc.
#pragma once

#include "models/arch/arch.h"

namespace lutra {

extern const ArchSpec kArchLlama, kArchSmolLm3, kArchQwen2, kArchQwen2Moe, kArchQwen3,
    kArchQwen3Moe;

}  // namespace lutra
