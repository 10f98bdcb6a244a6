// SHA-256 (FIPS 180-4), as the sha256sum program prints it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace lutra {

// 64 hexadecimal digits.
std::string Sha256Hex(std::span<const uint8_t> bytes);

}  // namespace lutra
