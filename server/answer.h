// Answers as JSON: every member that OpenAI's published schema requires is there, null where there is nothing to say.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/token_stream.h"
#include "server/json.h"
#include "server/output_parser.h"

namespace lutra::server {

// What all parts of one answer have in common.
struct AnswerHead {
  std::string id;      // "chatcmpl-..."
  std::string object;  // "chat.completion", "chat.completion.chunk", "text_completion"
  std::string model;
  int64_t created = 0;
};
Json StartAnswer(const AnswerHead& head);

struct Usage {
  size_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, reasoning_tokens = 0;
};
Json UsageJson(const Usage& usage, bool chat);
Json TimingsJson(const SequenceStats& stats);

// {"content": [...], "refusal": null}
Json ChatLogprobs(std::span<const LogprobEntry> entries);

// tokens, token_logprobs, top_logprobs, text_offset of entries that begin at *offset in the text, in characters; moves *offset.
Json LegacyLogprobs(std::span<const LogprobEntry> entries, bool top, size_t* offset);

// "stop", "length", or "tool_calls" for an answer with calls.
const char* FinishText(FinishReason reason, bool calls);

Json CallJson(const CallDelta& call);

// "chatcmpl-" and 29 random letters.
std::string NewId(const char* prefix);

std::string Fingerprint();

}  // namespace lutra::server
