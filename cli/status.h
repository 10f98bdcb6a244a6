// The line at the end of an answer.
#pragma once

#include <string>

#include "engine/generate.h"

namespace lutra::cli {

// "[prompt 31 tokens (12 cached) | first token 0.02 s | prefill 900.0 t/s | decode 70 tokens, 31.0 t/s, 0.70 GB a token, 21.7 GB/s,
// 43 % of the limit | context 80/512 | stop]". The limit is shown once `lutra bench` or `lutra doctor` has measured it.
std::string StatusLine(const Generation& g, const Session& session, Engine& engine);

}  // namespace lutra::cli
