#include "models/arch/registry.h"

namespace lutra {
namespace {

constexpr const ArchSpec* kArchs[] = {
    &kArchLlama, &kArchSmolLm3, &kArchQwen2, &kArchQwen2Moe, &kArchQwen3, &kArchQwen3Moe,
};

}  // namespace

const ArchSpec* FindArch(std::string_view name) {
  for (const ArchSpec* arch : kArchs) {
    if (name == arch->name) return arch;
  }
  return nullptr;
}

std::span<const ArchSpec* const> AllArchs() { return kArchs; }

}  // namespace lutra
