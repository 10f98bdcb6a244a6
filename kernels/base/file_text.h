// Small files: what /proc and /sys tell, caches, recorded runs.
#pragma once

#include <string>

namespace lutra {

// All bytes of the file, "" if it cannot be read. Never throws but for want of memory.
std::string FileText(const std::string& path);

}  // namespace lutra
