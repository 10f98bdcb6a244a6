// From a request's messages or prompt to tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/params.h"
#include "server/served_model.h"

namespace lutra::server {

struct ChatPrompt {
  std::string text;  // as the template rendered it
  std::vector<int32_t> tokens;
  bool in_thought = false;  // the answer begins inside a thought
  std::string prefix;       // what continue_final_message continues
};

// Renders and tokenizes. What users write never becomes a control token: texts of such tokens in message contents are tokenized
// as plain text. Throws ApiError(400) naming the message and member that is wrong, or with the template's own refusal.
ChatPrompt MakeChatPrompt(const Params& params, const ServedModel& model);

// The prompts of a completions or embeddings request: texts or token ids. `field` names it in refusals. Throws ApiError(400).
std::vector<std::vector<int32_t>> MakePrompts(const Json& value, const char* field,
                                              size_t max_prompts, const ServedModel& model);

// Throws ApiError(400, context_length_exceeded) with both numbers if a prompt leaves no room for `wanted` tokens (0 or 1) in the
// context.
void CheckContext(size_t n_prompt, size_t wanted, const ServedModel& model, const char* field);

}  // namespace lutra::server
