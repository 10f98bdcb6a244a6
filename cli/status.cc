#include "cli/status.h"

#include "kernels/base/error.h"

namespace lutra::cli {

std::string StatusLine(const Generation& g, const Session& session) {
  std::string line = Format("[prompt %zu tokens", g.prompt_tokens);
  if (g.cached_tokens != 0) line += Format(" (%zu cached)", g.cached_tokens);
  line += Format(" | first token %.2f s | prefill %.1f t/s | decode %zu tokens, %.1f t/s | context %zu/%u | %s]",
                 g.first_token_seconds, g.prompt_rate(), g.tokens.size(), g.decode_rate(), session.tokens().size(),
                 session.n_ctx(), FinishReasonName(g.finish));
  return line;
}

}  // namespace lutra::cli
