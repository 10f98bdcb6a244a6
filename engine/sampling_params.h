// What a request may say about sampling, and the one table that describes it. Validation, the
// chat's `/set`, command line options and the printed documentation all come from that table: a new
// parameter is one field here and one row in sampling_params.cc.
// Meanings, defaults and "off" values: llama.cpp's (mid-2026).
// Plain data and pure functions; safe to use from any thread on distinct objects.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lutra {

inline constexpr uint32_t kRandomSeed = 0xFFFFFFFF;

// Added to the logit of `token` before anything else; bias -infinity forbids the token.
struct LogitBias {
  int32_t token;
  float bias;
};

struct SamplingParams {
  uint32_t seed = kRandomSeed;
  // Names of the stages in the order they run; unset is all of them in their default order. A stage
  // that is left out has no effect whatever its parameters say, temperature included.
  std::optional<std::vector<std::string>> samplers;
  int32_t min_keep = 0;
  bool ignore_eos = false;
  std::vector<LogitBias> logit_bias;

  float temperature = 0.8f;
  float dynatemp_range = 0.0f;
  float dynatemp_exponent = 1.0f;
  int32_t top_k = 40;
  float top_p = 0.95f;
  float min_p = 0.05f;
  float typical_p = 1.0f;
  float top_n_sigma = -1.0f;
  float xtc_probability = 0.0f;
  float xtc_threshold = 0.1f;

  int32_t repeat_last_n = 64;
  float repeat_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;

  float dry_multiplier = 0.0f;
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;
  int32_t dry_penalty_last_n = 64;
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};

  int32_t mirostat = 0;
  float mirostat_tau = 5.0f;
  float mirostat_eta = 0.1f;
};

// Where a parameter lives; the alternative is also its type.
using SamplingField =
    std::variant<bool SamplingParams::*, int32_t SamplingParams::*, uint32_t SamplingParams::*,
                 float SamplingParams::*, std::optional<std::vector<std::string>> SamplingParams::*,
                 std::vector<std::string> SamplingParams::*,
                 std::vector<LogitBias> SamplingParams::*>;

struct SamplingParamRow {
  const char* name;   // in JSON and for SetByName; the command line option is OptionName()
  const char* alias;  // a second name that is accepted, or ""
  SamplingField field;
  double min, max;  // inclusive, for numbers
  const char* description;

  std::string OptionName() const;  // "--top-k"
  const char* TypeName() const;    // "integer", "number", "boolean", "list"
  std::string RangeText() const;   // "from 0 to 1"; for lists, what an element looks like
  std::string DefaultText() const;
  // The value as text that SetByName reads back to the same value.
  std::string Text(const SamplingParams& params) const;
};

std::span<const SamplingParamRow> SamplingParamTable();

// The row of `name` or of its alias, '-' and '_' being the same; null if there is none.
const SamplingParamRow* FindSamplingParam(std::string_view name);

// Sets one parameter from text. Numbers are decimal, booleans true/false/1/0/on/off. Lists:
//   samplers               "default", "none", names divided by ';' or ',', or the stages' letters
//   dry_sequence_breakers  "none", or strings divided by ','; escapes \n \t \r \" \\ and \,
//   logit_bias             "none", or TOKEN=BIAS divided by ','; BIAS is a number, -inf or false
// Throws Error(kInvalidArgument) that names the parameter, the value and what it takes; `params` is
// then unchanged.
void SetByName(SamplingParams* params, std::string_view name, std::string_view text);

// The same for a list given as a list, such as a JSON array (samplers, dry_sequence_breakers).
void SetListByName(SamplingParams* params, std::string_view name,
                   std::span<const std::string> values);

// Checks every field against the table. Throws Error(kInvalidArgument) like SetByName.
void Validate(const SamplingParams& params);

// One paragraph a parameter: option, type, range, default, description. For `--help` and the docs.
std::string SamplingParamsHelp();

}  // namespace lutra
