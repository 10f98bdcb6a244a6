#include "cli/status.h"

#include <ctime>
#include <optional>

#include "cli/bench/roofline.h"
#include "cli/bench/speed_text.h"
#include "kernels/base/error.h"

namespace lutra::cli {

std::string StatusLine(const Generation& g, const Session& session, Engine& engine) {
  static const std::optional<bench::Roofline> limits =
      bench::CachedRoofline(bench::CacheDir(), bench::CpuName(), engine.pool().n_threads(),
                            std::time(nullptr), bench::kRooflineMaxAge);
  std::string line = Format("[prompt %zu tokens", g.prompt_tokens);
  if (g.cached_tokens != 0) line += Format(" (%zu cached)", g.cached_tokens);
  line += Format(" | first token %.2f s | prefill %.1f t/s | decode %zu tokens, %.1f t/s",
                 g.first_token_seconds, g.prompt_rate(), g.tokens.size(), g.decode_rate());
  // The first token comes with the prompt.
  const std::string speed =
      bench::DecodeSpeedText(engine.model(), engine.decoder().kv_layout(), g.prompt_tokens,
                             g.tokens.empty() ? 0 : g.tokens.size() - 1, g.decode_seconds, limits);
  if (!speed.empty()) line += ", " + speed;
  return line + Format(" | context %zu/%u | %s]", session.tokens().size(), session.n_ctx(),
                       FinishReasonName(g.finish));
}

}  // namespace lutra::cli
