#include "server/params.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/limits.h"
#include "kernels/base/error.h"
#include "server/api_error.h"
#include "server/limits.h"

namespace lutra::server {
namespace {

using P = Params;
constexpr unsigned kText = kChat | kCompletions;
constexpr unsigned kAll = kText | kEmbeddings | kTokenize | kDetokenize | kApplyTemplate;
constexpr double kInt31 = 2147483647;

const FieldRow kTable[] = {
    {.name = "model",
     .endpoints = kAll,
     .field = &P::model,
     .default_text = "the first model",
     .description = "Name of a served model, see /v1/models."},
    {.name = "messages",
     .endpoints = kChat | kApplyTemplate,
     .field = &P::messages,
     .values = "list",
     .description =
         "The conversation: objects with role and content (a text or a list of text parts)."},
    {.name = "prompt",
     .endpoints = kCompletions,
     .field = &P::prompt,
     .values = "string|list",
     .description = "A text, a list of texts, token ids or a list of lists of token ids."},
    {.name = "input",
     .endpoints = kEmbeddings,
     .field = &P::input,
     .values = "string|list",
     .description = "A text, a list of texts, token ids or a list of lists of token ids."},
    {.name = "content",
     .endpoints = kTokenize,
     .field = &P::content,
     .description = "The text to tokenize."},
    {.name = "tokens",
     .endpoints = kDetokenize,
     .field = &P::tokens,
     .values = "list",
     .description = "The token ids to turn into text."},
    {.name = "add_special",
     .endpoints = kTokenize,
     .field = &P::add_special,
     .default_text = "false",
     .description = "Puts BOS in front where the vocabulary wants it."},
    {.name = "parse_special",
     .endpoints = kTokenize,
     .field = &P::parse_special,
     .default_text = "true",
     .description = "Recognizes control tokens in the text."},
    {.name = "with_pieces",
     .endpoints = kTokenize,
     .field = &P::with_pieces,
     .default_text = "false",
     .description = "Answers {id, piece} instead of ids."},
    {.name = "stream",
     .endpoints = kText,
     .field = &P::stream,
     .default_text = "false",
     .description = "Sends the answer as server-sent events while it is generated."},
    {.name = "stream_options",
     .endpoints = kText,
     .field = &P::stream_options,
     .values = "object",
     .description = "{\"include_usage\": true} adds a last chunk with the usage."},
    {.name = "max_tokens",
     .endpoints = kText,
     .field = &P::max_tokens,
     .min = 0,
     .max = kInt31,
     .default_text = "until the end or a full context",
     .description = "The most tokens to generate. 0 only scores the prompt (completions)."},
    {.name = "max_completion_tokens",
     .endpoints = kChat,
     .field = &P::max_completion_tokens,
     .min = 1,
     .max = kInt31,
     .description = "The newer name of max_tokens; counts if both are given."},
    {.name = "n",
     .endpoints = kText,
     .field = &P::n,
     .min = 1,
     .max = kMaxChoices,
     .default_text = "1",
     .description = "Answers to generate."},
    {.name = "best_of",
     .endpoints = kCompletions,
     .field = &P::best_of,
     .min = 1,
     .max = 1,
     .default_text = "1",
     .description = "Only 1."},
    {.name = "suffix",
     .endpoints = kCompletions,
     .field = &P::suffix,
     .description = "Text behind the completion; only the empty one is taken."},
    {.name = "echo",
     .endpoints = kCompletions,
     .field = &P::echo,
     .default_text = "false",
     .description = "Puts the prompt in front of the completion, with logprobs its tokens too."},
    {.name = "stop",
     .endpoints = kText,
     .field = &P::stop,
     .values = "string|list",
     .description = "Up to 16 texts of 256 bytes that end the answer; they are not part of it."},
    {.name = "logprobs",
     .endpoints = kChat,
     .field = &P::logprobs,
     .default_text = "false",
     .description = "Log probabilities of the tokens."},
    {.name = "logprobs",
     .endpoints = kCompletions,
     .field = &P::legacy_logprobs,
     .min = 0,
     .max = kMaxTopLogprobs,
     .description = "Log probabilities of the tokens and of so many likeliest ones."},
    {.name = "top_logprobs",
     .endpoints = kChat,
     .field = &P::top_logprobs,
     .min = 0,
     .max = kMaxTopLogprobs,
     .default_text = "0",
     .description = "Likeliest tokens beside each; needs logprobs."},
    {.name = "response_format",
     .endpoints = kText,
     .field = &P::response_format,
     .values = "object",
     .description = "{\"type\": \"text\" | \"json_object\" | \"json_schema\", \"json_schema\": "
                    "{\"schema\": ...}}."},
    {.name = "json_schema",
     .endpoints = kText,
     .field = &P::json_schema,
     .values = "object|boolean",
     .description = "A JSON schema that the answer must match."},
    {.name = "grammar",
     .endpoints = kText,
     .field = &P::grammar,
     .description = "A grammar in GBNF that the answer must match."},
    {.name = "tools",
     .endpoints = kChat | kApplyTemplate,
     .field = &P::tools,
     .values = "list",
     .description = "Functions the model may call."},
    {.name = "tool_choice",
     .endpoints = kChat,
     .field = &P::tool_choice,
     .values = "string|object",
     .default_text = "auto",
     .description =
         "none, auto, required, or {\"type\": \"function\", \"function\": {\"name\": ...}}."},
    {.name = "parallel_tool_calls",
     .endpoints = kChat,
     .field = &P::parallel_tool_calls,
     .default_text = "true",
     .description = "Allows several calls in one answer."},
    {.name = "chat_template_kwargs",
     .endpoints = kChat | kApplyTemplate,
     .field = &P::template_kwargs,
     .values = "object",
     .description = "Variables for the chat template, such as enable_thinking."},
    {.name = "reasoning_effort",
     .endpoints = kChat,
     .field = &P::reasoning_effort,
     .values = "none|minimal|low|medium|high|xhigh|max",
     .description = "Passed to the chat template; none also sets enable_thinking to false."},
    {.name = "reasoning_format",
     .endpoints = kChat,
     .field = &P::reasoning_format,
     .values = "auto|none",
     .default_text = "auto",
     .description = "auto splits thoughts into reasoning_content, none leaves them in content."},
    {.name = "continue_final_message",
     .endpoints = kChat | kApplyTemplate,
     .field = &P::continue_final_message,
     .default_text = "false",
     .description = "Continues the last message, which is the assistant's."},
    {.name = "add_generation_prompt",
     .endpoints = kChat | kApplyTemplate,
     .field = &P::add_generation_prompt,
     .default_text = "true",
     .description = "Ends the prompt with the beginning of an answer."},
    {.name = "cache_prompt",
     .endpoints = kText,
     .field = &P::cache_prompt,
     .default_text = "true",
     .description = "Uses and keeps what is known of the prompt. Changes speed only."},
    {.name = "special",
     .endpoints = kCompletions,
     .field = &P::special,
     .default_text = "false",
     .description = "Shows control tokens in the text."},
    {.name = "timings_per_token",
     .endpoints = kText,
     .field = &P::timings_per_token,
     .default_text = "false",
     .description = "Puts timings into every chunk of a stream."},
    {.name = "return_progress",
     .endpoints = kText,
     .field = &P::return_progress,
     .default_text = "false",
     .description = "Sends chunks with prompt_progress while a prompt is computed."},
    {.name = "encoding_format",
     .endpoints = kEmbeddings,
     .field = &P::encoding_format,
     .values = "float|base64",
     .default_text = "float",
     .description = "base64 is of little-endian 32-bit floats."},
    {.name = "dimensions",
     .endpoints = kEmbeddings,
     .field = &P::dimensions,
     .min = 1,
     .max = kInt31,
     .default_text = "the model's",
     .description = "Keeps the first so many numbers, scaled to unit length again."},
    {.name = "user",
     .endpoints = kText | kEmbeddings,
     .field = &P::user,
     .description = "Whom the client asks for; waiting users take turns."},
    {.name = "metadata", .endpoints = kText, .description = "Accepted."},
    {.name = "store", .endpoints = kText, .description = "Accepted; nothing is stored."},
    {.name = "service_tier", .endpoints = kText, .description = "Accepted."},
    {.name = "safety_identifier", .endpoints = kText, .description = "Accepted."},
    {.name = "prompt_cache_key",
     .endpoints = kText,
     .description = "Accepted; prefixes are found without it."},
    {.name = "prompt_cache_retention", .endpoints = kText, .description = "Accepted."},
    {.name = "modalities",
     .endpoints = kChat,
     .silent = false,
     .description = "No effect: answers are text."},
    {.name = "audio", .endpoints = kChat, .silent = false, .description = "No effect."},
    {.name = "prediction", .endpoints = kChat, .silent = false, .description = "No effect."},
    {.name = "verbosity", .endpoints = kChat, .silent = false, .description = "No effect."},
    {.name = "web_search_options",
     .endpoints = kChat,
     .silent = false,
     .description = "No effect."},
    {.name = "functions",
     .endpoints = kChat,
     .silent = false,
     .description = "No effect: use tools."},
    {.name = "function_call",
     .endpoints = kChat,
     .silent = false,
     .description = "No effect: use tool_choice."},
};

[[noreturn]] void Refuse(const std::string& name, const Json& value, const std::string& takes) {
  throw ApiError(400, "field '" + name + "' is " + ShowJson(value) + "; it takes " + takes, name,
                 "invalid_value");
}

std::string WholeRange(double min, double max) {
  return Format("an integer from %.0f to %.0f", min, max);
}

bool HasType(const Json& v, const std::string& name) {
  if (name == "list") return v.is_array();
  if (name == "object") return v.is_object();
  if (name == "string") return v.is_string();
  return name == "boolean" && v.is_boolean();
}

std::vector<std::string> SplitValues(const char* values) {
  std::vector<std::string> out;
  std::string part;
  for (const char* c = values;; ++c) {
    if (*c == '|' || *c == '\0') {
      if (!part.empty()) out.push_back(part);
      part.clear();
      if (*c == '\0') return out;
    } else {
      part += *c;
    }
  }
}

std::string Join(const std::vector<std::string>& parts, const char* between) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : between) + p;
  return out;
}

// What a row takes, in words.
std::string Takes(const FieldRow& row) {
  if (std::holds_alternative<bool P::*>(row.field)) return "true or false";
  if (std::holds_alternative<int64_t P::*>(row.field)) return WholeRange(row.min, row.max);
  const std::vector<std::string> values = SplitValues(row.values);
  if (std::holds_alternative<Json P::*>(row.field)) {
    std::string text;
    for (const std::string& v : values)
      text += (text.empty() ? "" : " or ") + std::string(v == "object" ? "an " : "a ") + v;
    return text;
  }
  if (std::holds_alternative<std::string P::*>(row.field))
    return values.empty() ? "a string" : "one of: " + Join(values, ", ");
  return "anything";
}

// A number that JSON wrote as an integer or as 5.0; false for anything else.
bool WholeNumber(const Json& v, int64_t* out) {
  if (v.is_number_unsigned()) {
    const uint64_t u = v.get<uint64_t>();
    if (u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    *out = static_cast<int64_t>(u);
    return true;
  }
  if (v.is_number_integer()) {
    *out = v.get<int64_t>();
    return true;
  }
  if (!v.is_number_float()) return false;
  const double d = v.get<double>();
  if (!(std::fabs(d) < 9e15) || d != std::floor(d)) return false;
  *out = static_cast<int64_t>(d);
  return true;
}

void Read(const FieldRow& row, const Json& v, Params* p) {
  const std::string name = row.name;
  if (const auto* b = std::get_if<bool P::*>(&row.field)) {
    if (!v.is_boolean()) Refuse(name, v, Takes(row));
    p->** b = v.get<bool>();
  } else if (const auto* i = std::get_if<int64_t P::*>(&row.field)) {
    int64_t whole;
    if (!WholeNumber(v, &whole) || static_cast<double>(whole) < row.min ||
        static_cast<double>(whole) > row.max) {
      Refuse(name, v, Takes(row));
    }
    p->** i = whole;
  } else if (const auto* s = std::get_if<std::string P::*>(&row.field)) {
    if (!v.is_string()) Refuse(name, v, Takes(row));
    const std::vector<std::string> values = SplitValues(row.values);
    p->** s = v.get<std::string>();
    if (!values.empty() && std::find(values.begin(), values.end(), p->**s) == values.end())
      Refuse(name, v, Takes(row));
  } else if (const auto* j = std::get_if<Json P::*>(&row.field)) {
    const std::vector<std::string> types = SplitValues(row.values);
    if (std::none_of(types.begin(), types.end(),
                     [&](const std::string& t) { return HasType(v, t); }))
      Refuse(name, v, Takes(row));
    p->** j = v;
  } else if (!row.silent) {
    p->ignored.push_back(name);
  }
}

void ReadLogitBias(const Json& v, SamplingParams* sampling) {
  const std::string takes =
      "{\"TOKEN ID\": BIAS} or [[TOKEN ID, BIAS], ...] with biases from -100 to 100 or false, at "
      "most " +
      std::to_string(kMaxRequestBiases);
  std::vector<LogitBias> list;
  const auto add = [&](int64_t token, const Json& bias) {
    LogitBias entry;
    if (token < 0 || token > std::numeric_limits<int32_t>::max())
      Refuse("logit_bias", token, takes);
    entry.token = static_cast<int32_t>(token);
    if (bias.is_boolean() && !bias.get<bool>()) {
      entry.bias = -std::numeric_limits<float>::infinity();
    } else if (bias.is_number() && std::fabs(bias.get<double>()) <= 100) {
      entry.bias = bias.get<float>();
    } else {
      Refuse("logit_bias", bias, takes);
    }
    list.push_back(entry);
  };
  if (v.size() > kMaxRequestBiases) Refuse("logit_bias", v, takes);
  if (v.is_object()) {
    for (const auto& [key, bias] : v.items()) {
      int64_t token = 0;
      if (key.empty() || key.size() > 10 ||
          key.find_first_not_of("0123456789") != std::string::npos) {
        Refuse("logit_bias", key, takes);
      }
      for (const char c : key) token = token * 10 + (c - '0');
      add(token, bias);
    }
  } else if (v.is_array()) {
    for (const Json& entry : v) {
      int64_t token;
      if (!entry.is_array() || entry.size() != 2 || !WholeNumber(entry[0], &token))
        Refuse("logit_bias", entry, takes);
      add(token, entry[1]);
    }
  } else {
    Refuse("logit_bias", v, takes);
  }
  sampling->logit_bias = std::move(list);
}

void ReadSeed(const Json& v, SamplingParams* sampling) {
  int64_t seed;
  if (v.is_number_unsigned()) {
    seed = static_cast<int64_t>(v.get<uint64_t>());
  } else if (!WholeNumber(v, &seed)) {
    Refuse("seed", v, "an integer; -1 draws one at random");
  }
  if (seed == -1 || seed == kRandomSeed) {
    sampling->seed = kRandomSeed;
    return;
  }
  // 64 bits are folded; what would mean "random" is another number.
  const uint64_t u = static_cast<uint64_t>(seed);
  sampling->seed = static_cast<uint32_t>(u >> 32 ^ (u & 0xFFFFFFFFu));
  if (sampling->seed == kRandomSeed) sampling->seed = 1;
}

void ReadSampling(const SamplingParamRow& row, const std::string& name, const Json& v,
                  SamplingParams* sampling) {
  if (std::strcmp(row.name, "logit_bias") == 0) return ReadLogitBias(v, sampling);
  if (std::strcmp(row.name, "seed") == 0) return ReadSeed(v, sampling);
  const SamplingRange range = RangeOf(row);
  const std::string type = row.TypeName();
  if (type == "list") {
    std::vector<std::string> list;
    const std::string takes = row.RangeText() + ", as a list of strings";
    if (v.is_string() && std::strcmp(row.name, "samplers") == 0) {
      try {
        SetByName(sampling, row.name, v.get<std::string>());
      } catch (const Error& e) {
        throw ApiError(400, e.what(), name, "invalid_value");
      }
      return;
    }
    if (!v.is_array() || v.size() > 64) Refuse(name, v, takes);
    for (const Json& s : v) {
      if (!s.is_string() || s.get_ref<const std::string&>().size() > 256) Refuse(name, s, takes);
      list.push_back(s);
    }
    try {
      SetListByName(sampling, row.name, list);
    } catch (const Error& e) {
      throw ApiError(400, e.what(), name, "invalid_value");
    }
    return;
  }
  std::string text;
  if (type == "boolean") {
    if (!v.is_boolean()) Refuse(name, v, "true or false");
    text = v.get<bool>() ? "true" : "false";
  } else if (type == "integer") {
    int64_t whole;
    if (!WholeNumber(v, &whole) || static_cast<double>(whole) < range.min ||
        static_cast<double>(whole) > range.max) {
      Refuse(name, v, WholeRange(range.min, range.max));
    }
    text = std::to_string(whole);
  } else {
    const double number = v.is_number() ? v.get<double>() : NAN;
    if (!(number >= range.min && number <= range.max))
      Refuse(name, v, Format("a number from %g to %g", range.min, range.max));
    text = Format("%.9g", number);
  }
  try {
    SetByName(sampling, row.name, text);
  } catch (const Error& e) {
    throw ApiError(400, e.what(), name, "invalid_value");
  }
}

}  // namespace

std::span<const FieldRow> FieldTable() { return kTable; }

SamplingRange RangeOf(const SamplingParamRow& row) {
  static constexpr struct {
    const char* name;
    double min, max;
  } kOpenAi[] = {{"temperature", 0, 2}, {"presence_penalty", -2, 2}, {"frequency_penalty", -2, 2}};
  for (const auto& r : kOpenAi) {
    if (std::strcmp(r.name, row.name) == 0) return {r.min, r.max};
  }
  return {row.min, row.max};
}

Params ReadParams(const Json& body, Endpoint endpoint, const SamplingParams& defaults) {
  if (!body.is_object()) {
    throw ApiError(400,
                   std::string("the body is ") + JsonTypeName(body) + "; it must be a JSON object",
                   "", "invalid_json");
  }
  Params p;
  p.sampling = defaults;
  for (const auto& [name, value] : body.items()) {
    const FieldRow* row = std::find_if(
        std::begin(kTable), std::end(kTable),
        [&](const FieldRow& r) { return name == r.name && (r.endpoints & endpoint) != 0; });
    if (row != std::end(kTable)) {
      if (!value.is_null()) Read(*row, value, &p);
      continue;
    }
    const SamplingParamRow* sampling = (endpoint & kText) != 0 ? FindSamplingParam(name) : nullptr;
    if (sampling != nullptr) {
      if (!value.is_null()) ReadSampling(*sampling, name, value, &p.sampling);
    } else {
      p.unknown.push_back(name);
    }
  }
  return p;
}

std::string FieldsMarkdown() {
  std::string out =
      "| field | where | takes | default | meaning |\n| --- | --- | --- | --- | --- |\n";
  constexpr std::pair<unsigned, const char*> kPlaces[] = {
      {kChat, "chat"},         {kCompletions, "completions"}, {kEmbeddings, "embeddings"},
      {kTokenize, "tokenize"}, {kDetokenize, "detokenize"},   {kApplyTemplate, "apply-template"}};
  const auto escape = [](std::string s) {
    for (size_t i = 0; i < s.size(); ++i) {
      if (s[i] == '|') s.insert(i++, "\\");
    }
    return s;
  };
  for (const FieldRow& row : kTable) {
    std::string where;
    for (const auto& [bit, name] : kPlaces) {
      if ((row.endpoints & bit) != 0) where += (where.empty() ? "" : ", ") + std::string(name);
    }
    out += std::string("| `") + row.name + "` | " + (row.endpoints == kAll ? "all" : where) +
           " | " + Takes(row) + " | " + row.default_text + " | " + escape(row.description) + " |\n";
  }
  for (const SamplingParamRow& row : SamplingParamTable()) {
    const SamplingRange range = RangeOf(row);
    const std::string type = row.TypeName();
    const std::string name = row.name;
    const std::string takes =
        name == "seed"         ? "an integer; -1 draws one"
        : name == "logit_bias" ? "{\"ID\": BIAS}, biases from -100 to 100 or false"
        : type == "integer"    ? WholeRange(range.min, range.max)
        : type == "number"     ? Format("a number from %g to %g", range.min, range.max)
        : type == "boolean"    ? "true or false"
                               : "a list of strings";
    out += "| `" + name + "` | chat, completions | " + takes + " | " + escape(row.DefaultText()) +
           " | " + escape(row.description) + " |\n";
  }
  return out;
}

}  // namespace lutra::server
