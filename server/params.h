// What a request may say: one declarative table of fields, from which reading, the texts of refusals, the documentation and the
// tests come. A new field is a member of Params and a row in params.cc; sampling fields come from the engine's own table.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "engine/sampling_params.h"
#include "server/json.h"

namespace lutra::server {

enum Endpoint : unsigned {
  kChat = 1,
  kCompletions = 2,
  kEmbeddings = 4,
  kTokenize = 8,
  kDetokenize = 16,
  kApplyTemplate = 32
};

struct Params {
  std::string model;
  Json messages, prompt, input, stream_options, tools, tool_choice, response_format, json_schema,
      template_kwargs, stop, tokens;
  std::string content, suffix, grammar, encoding_format = "float", reasoning_effort, user,
                                        reasoning_format = "auto";
  bool stream = false, logprobs = false, echo = false, parallel_tool_calls = true,
       continue_final_message = false, add_generation_prompt = true, cache_prompt = true,
       add_special = false, parse_special = true, with_pieces = false, timings_per_token = false,
       return_progress = false, special = false;
  int64_t max_tokens = -1, max_completion_tokens = -1, n = 1, top_logprobs = 0,
          legacy_logprobs = -1, best_of = 1, dimensions = 0;
  SamplingParams sampling;

  std::vector<std::string> unknown;  // fields that nobody knows
  std::vector<std::string> ignored;  // fields we know and do not honour
};

// Where a field lives; the alternative is its type. monostate: accepted and without effect.
using ParamField = std::variant<std::monostate, bool Params::*, int64_t Params::*,
                                std::string Params::*, Json Params::*>;

struct FieldRow {
  const char* name;
  unsigned endpoints;  // mask of Endpoint
  ParamField field = {};
  double min = 0, max = 0;  // of integers
  const char* values =
      "";  // strings: the values taken, divided by '|', or "" for any; JSON: the types taken
  const char* default_text = "";  // for the documentation; the value itself is Params's
  bool silent = true;             // without effect: false if a client should be told
  const char* description;
};

std::span<const FieldRow> FieldTable();

// Range of a sampling field as this interface takes it (OpenAI's where OpenAI has the field).
struct SamplingRange {
  double min, max;
};
SamplingRange RangeOf(const SamplingParamRow& row);

// Reads a request's body. `defaults` are the server's. Throws ApiError(400) naming the field, its value and what it takes.
Params ReadParams(const Json& body, Endpoint endpoint, const SamplingParams& defaults);

// The table as a Markdown table for docs/server.md.
std::string FieldsMarkdown();

}  // namespace lutra::server
