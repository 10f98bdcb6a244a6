// From a prompt to a text: feeds what is new of the prompt, then samples until something ends it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampling_params.h"
#include "engine/session.h"

namespace lutra {

struct GenerateOptions {
  SamplingParams sampling;
  size_t max_tokens = 0;          // 0: until the model ends or the context is full
  std::vector<std::string> stop;  // texts that end the answer; they are not part of it
  bool special = false;           // control tokens appear in the text
  // Called with each piece of text as soon as it is final (whole UTF-8 characters, no beginning of a stop text). Returning
  // false ends the answer.
  std::function<bool(std::string_view text)> on_text;
  Session::FeedProgress on_prompt;            // while the prompt is computed
  const std::atomic<bool>* cancel = nullptr;  // looked at before every token and prompt batch
};

enum class FinishReason { kStop, kLength, kContextFull, kCancelled };
// "stop", "length", "context_full", "cancelled".
const char* FinishReasonName(FinishReason reason);

struct Generation {
  std::string text;
  std::vector<int32_t> tokens;  // generated; an end-of-generation token is not among them
  FinishReason finish = FinishReason::kStop;
  int32_t end_token = -1;          // the end-of-generation token that ended it, or -1
  size_t prompt_tokens = 0;        // all of the prompt
  size_t cached_tokens = 0;        // of which were in the cache
  double prompt_seconds = 0;       // computing the rest
  double first_token_seconds = 0;  // from the call to the first token
  double decode_seconds = 0;       // from the first token to the end
  uint32_t seed = 0;               // what the sampler used

  double prompt_rate() const;  // tokens a second, 0 if nothing was computed
  double decode_rate() const;
};

// prompt: at least one token. Reuses the longest common prefix that the session holds and forgets the rest. Throws what
// Session::Feed throws (a prompt that does not fit the context is refused before anything is lost) and
// Error(kInvalidArgument) for parameters out of range.
Generation Generate(Engine& engine, Session& session, std::span<const int32_t> prompt,
                    const GenerateOptions& options);

}  // namespace lutra
