// The line at the end of an answer.
#pragma once

#include <string>

#include "engine/generate.h"

namespace lutra::cli {

// "[prompt 31 tokens (12 cached) | first token 0.02 s | prefill 900.0 t/s | decode 310.0 t/s | context 80/512 | stop]"
std::string StatusLine(const Generation& g, const Session& session);

}  // namespace lutra::cli
