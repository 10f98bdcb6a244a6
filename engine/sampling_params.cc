#include "engine/sampling_params.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "engine/limits.h"
#include "engine/sampler.h"
#include "kernels/base/error.h"

namespace lutra {
namespace {

using P = SamplingParams;

constexpr double kIntMax = std::numeric_limits<int32_t>::max();

// Where "off" is any value <= 0, -1 is accepted because clients write it.
const SamplingParamRow kTable[] = {
    {"seed", "", &P::seed, 0, kRandomSeed,
     "Seed of the random numbers; 4294967295 (or -1) draws one at random."},
    {"samplers", "", &P::samplers, 0, 0, "Stages of the chain, in the order they run."},
    {"temperature", "temp", &P::temperature, -1, 1e6,
     "Divides the logits; 0 and below take the best token. 1 is off."},
    {"dynatemp_range", "", &P::dynatemp_range, -1, 1e6,
     "Temperature varies by this much around its value with the entropy. 0 is off."},
    {"dynatemp_exponent", "dynatemp_exp", &P::dynatemp_exponent, 0, 100,
     "How entropy maps to the dynamic temperature."},
    {"top_k", "", &P::top_k, -1, kIntMax, "Keeps the k best tokens. 0 is off."},
    {"top_p", "", &P::top_p, 0, 1,
     "Keeps the best tokens that together reach this probability. 1 is off."},
    {"min_p", "", &P::min_p, -1, 1,
     "Keeps tokens at least this probable relative to the best one. 0 is off."},
    {"typical_p", "typical", &P::typical_p, 0, 1,
     "Keeps the tokens nearest to the expected surprise, up to this probability. 1 is off."},
    {"top_n_sigma", "", &P::top_n_sigma, -1, 1e6,
     "Keeps logits within n standard deviations of the greatest. 0 and below are off."},
    {"xtc_probability", "", &P::xtc_probability, -1, 1,
     "Chance that the top choices are excluded at a token. 0 is off."},
    {"xtc_threshold", "", &P::xtc_threshold, 0, 1,
     "Probability from which a token is a top choice. Above 0.5 is off."},
    {"min_keep", "", &P::min_keep, 0, kIntMax,
     "The least number of tokens that top_p, min_p, typical_p and xtc leave."},
    {"repeat_last_n", "penalty_last_n", &P::repeat_last_n, -1, kMaxPenaltyTokens,
     "Tokens looked back at by the three penalties. 0 and below are off."},
    {"repeat_penalty", "", &P::repeat_penalty, 1e-3, 1e3,
     "Divides positive and multiplies negative logits of repeated tokens. 1 is off."},
    {"frequency_penalty", "", &P::frequency_penalty, -1e3, 1e3,
     "Subtracted from a token's logit for every time it occurred. 0 is off."},
    {"presence_penalty", "", &P::presence_penalty, -1e3, 1e3,
     "Subtracted from a token's logit if it occurred. 0 is off."},
    {"dry_multiplier", "", &P::dry_multiplier, 0, 1e3,
     "Strength of the penalty on repeating sequences. 0 is off."},
    {"dry_base", "", &P::dry_base, 0, 1e3,
     "Base of the penalty's growth with the sequence's length. Below 1 is off."},
    {"dry_allowed_length", "", &P::dry_allowed_length, 0, kMaxPenaltyTokens,
     "Repeated sequences shorter than this many tokens are not penalized."},
    {"dry_penalty_last_n", "", &P::dry_penalty_last_n, -1, kMaxPenaltyTokens,
     "Tokens looked back at for repeated sequences. 0 and below are off."},
    {"dry_sequence_breakers", "dry_sequence_breaker", &P::dry_sequence_breakers, 0, 0,
     "Strings that end a repeated sequence."},
    {"mirostat", "", &P::mirostat, 0, 2,
     "Mirostat version 1 or 2 replaces all stages but temperature. 0 is off."},
    {"mirostat_tau", "mirostat_ent", &P::mirostat_tau, 0, 100,
     "Surprise, in bits a token, that mirostat holds."},
    {"mirostat_eta", "mirostat_lr", &P::mirostat_eta, 0, 10, "Learning rate of mirostat."},
    {"ignore_eos", "", &P::ignore_eos, 0, 0, "Never ends the text by itself."},
    {"logit_bias", "", &P::logit_bias, 0, 0, "Added to the logits of single tokens."},
};

// Shortest text that reads back to the same value.
template <class T>
std::string NumberText(T value) {
  char buffer[64];
  const std::to_chars_result r = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, r.ptr);
}

[[noreturn]] void FailValue(const SamplingParamRow& row, std::string_view value) {
  Fail(ErrorCode::kInvalidArgument, "sampling parameter '%s' is '%s'; it takes %s", row.name,
       Printable(value, 60).c_str(), row.RangeText().c_str());
}

template <class T>
bool ParseWhole(std::string_view text, T* value) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const char* end = text.data() + text.size();
  const std::from_chars_result r = std::from_chars(text.data(), end, *value);
  return r.ec == std::errc() && r.ptr == end;
}

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

std::vector<std::string> Split(std::string_view text, std::string_view dividers) {
  std::vector<std::string> parts;
  while (true) {
    const size_t at = text.find_first_of(dividers);
    parts.emplace_back(Trim(text.substr(0, at)));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

void Parse(const SamplingParamRow& row, std::string_view text, bool* value) {
  if (text == "true" || text == "1" || text == "on") {
    *value = true;
  } else if (text == "false" || text == "0" || text == "off") {
    *value = false;
  } else {
    FailValue(row, text);
  }
}

void Parse(const SamplingParamRow& row, std::string_view text, int32_t* value) {
  int64_t wide;
  if (!ParseWhole(text, &wide) || static_cast<double>(wide) < row.min ||
      static_cast<double>(wide) > row.max) {
    FailValue(row, text);
  }
  *value = static_cast<int32_t>(wide);
}

void Parse(const SamplingParamRow& row, std::string_view text, uint32_t* value) {
  if (text == "-1") {
    *value = kRandomSeed;
    return;
  }
  if (!ParseWhole(text, value)) FailValue(row, text);
}

void Parse(const SamplingParamRow& row, std::string_view text, float* value) {
  if (!ParseWhole(text, value) || !std::isfinite(*value)) FailValue(row, text);
}

// Names, or letters where the text is no name.
void Parse(const SamplingParamRow& row, std::string_view text,
           std::optional<std::vector<std::string>>* value) {
  if (text == "default") {
    value->reset();
    return;
  }
  std::vector<std::string> names;
  if (text == "none" || text.empty()) {
    *value = names;
    return;
  }
  if (text.find_first_of(";,") != std::string_view::npos || FindSamplerStage(text) != nullptr) {
    names = Split(text, ";,");
  } else {
    for (const char letter : text) {
      const SamplerStageRow* stage = FindSamplerStage(letter);
      if (stage == nullptr) FailValue(row, text);
      names.push_back(stage->name);
    }
  }
  *value = std::move(names);
}

void Parse(const SamplingParamRow& row, std::string_view text, std::vector<std::string>* value) {
  value->clear();
  if (text == "none" || text.empty()) return;
  std::string item;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ',') {
      value->push_back(std::move(item));
      item.clear();
    } else if (text[i] != '\\') {
      item += text[i];
    } else {
      const char escaped = i + 1 < text.size() ? text[++i] : '\0';
      switch (escaped) {
        case 'n':
          item += '\n';
          break;
        case 't':
          item += '\t';
          break;
        case 'r':
          item += '\r';
          break;
        case '\\':
        case '"':
        case ',':
          item += escaped;
          break;
        default:
          FailValue(row, text);
      }
    }
  }
  value->push_back(std::move(item));
}

void Parse(const SamplingParamRow& row, std::string_view text, std::vector<LogitBias>* value) {
  value->clear();
  if (text == "none" || text.empty()) return;
  for (const std::string& part : Split(text, ",")) {
    const std::string_view item = part;
    const size_t at = item.find('=');
    LogitBias entry;
    if (at == std::string_view::npos || !ParseWhole(Trim(item.substr(0, at)), &entry.token)) {
      FailValue(row, text);
    }
    const std::string_view bias = Trim(item.substr(at + 1));
    if (bias == "false") {
      entry.bias = -std::numeric_limits<float>::infinity();
    } else if (!ParseWhole(bias, &entry.bias)) {
      FailValue(row, text);
    }
    value->push_back(entry);
  }
}

void Check(const SamplingParamRow&, const bool&) {}

template <class T>
requires(std::is_arithmetic_v<T> &&
         !std::is_same_v<T, bool>) void Check(const SamplingParamRow& row, const T& value) {
  // Bounds such as 0.001 are compared as the type's nearest value. NaN fails both comparisons.
  if (!(value >= static_cast<T>(row.min) && value <= static_cast<T>(row.max))) {
    FailValue(row, NumberText(value));
  }
}

void Check(const SamplingParamRow& row, const std::optional<std::vector<std::string>>& value) {
  if (!value.has_value()) return;
  if (value->size() > kMaxSamplerStages) {
    Fail(ErrorCode::kInvalidArgument, "sampling parameter '%s' has %zu stages, at most %zu",
         row.name, value->size(), kMaxSamplerStages);
  }
  for (const std::string& name : *value) {
    if (FindSamplerStage(name) == nullptr) FailValue(row, name);
  }
}

void Check(const SamplingParamRow& row, const std::vector<std::string>& value) {
  if (value.size() > kMaxDryBreakers) {
    Fail(ErrorCode::kInvalidArgument, "sampling parameter '%s' has %zu strings, at most %zu",
         row.name, value.size(), kMaxDryBreakers);
  }
  for (const std::string& s : value) {
    if (s.empty()) FailValue(row, s);
  }
}

void Check(const SamplingParamRow& row, const std::vector<LogitBias>& value) {
  if (value.size() > kMaxLogitBiases) {
    Fail(ErrorCode::kInvalidArgument, "sampling parameter '%s' has %zu entries, at most %zu",
         row.name, value.size(), kMaxLogitBiases);
  }
  for (const LogitBias& entry : value) {
    if (entry.token < 0 || !(entry.bias < std::numeric_limits<float>::infinity())) {
      FailValue(row, NumberText(entry.token) + "=" + NumberText(entry.bias));
    }
  }
}

std::string ToText(bool value) { return value ? "true" : "false"; }

template <class T>
requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) std::string ToText(T value) {
  return NumberText(value);
}

std::string ToText(const std::optional<std::vector<std::string>>& value) {
  if (!value.has_value()) return "default";
  std::string text;
  for (const std::string& name : *value) text += (text.empty() ? "" : ";") + name;
  return text.empty() ? "none" : text;
}

std::string ToText(const std::vector<std::string>& value) {
  if (value.empty()) return "none";
  std::string text;
  for (const std::string& s : value) {
    if (&s != value.data()) text += ',';
    for (const char c : s) {
      switch (c) {
        case '\n':
          text += "\\n";
          break;
        case '\t':
          text += "\\t";
          break;
        case '\r':
          text += "\\r";
          break;
        case '\\':
        case ',':
          text += '\\';
          [[fallthrough]];
        default:
          text += c;
      }
    }
  }
  return text;
}

std::string ToText(const std::vector<LogitBias>& value) {
  std::string text;
  for (const LogitBias& entry : value) {
    text += (text.empty() ? "" : ",") + NumberText(entry.token) + "=" + NumberText(entry.bias);
  }
  return text.empty() ? "none" : text;
}

std::string Underscored(std::string_view name) {
  std::string out(name);
  for (char& c : out) {
    if (c == '-') c = '_';
  }
  return out;
}

const SamplingParamRow& FindOrFail(std::string_view name) {
  const SamplingParamRow* row = FindSamplingParam(name);
  if (row != nullptr) return *row;
  std::string names;
  for (const SamplingParamRow& r : kTable)
    names += (names.empty() ? "" : " ") + std::string(r.name);
  Fail(ErrorCode::kInvalidArgument, "there is no sampling parameter '%s'; there are: %s",
       Printable(name, 60).c_str(), names.c_str());
}

}  // namespace

std::span<const SamplingParamRow> SamplingParamTable() { return kTable; }

const SamplingParamRow* FindSamplingParam(std::string_view name) {
  const std::string wanted = Underscored(name);
  for (const SamplingParamRow& row : kTable) {
    if (wanted == row.name || (*row.alias != '\0' && wanted == row.alias)) return &row;
  }
  return nullptr;
}

std::string SamplingParamRow::OptionName() const {
  std::string option = "--" + std::string(name);
  for (char& c : option) {
    if (c == '_') c = '-';
  }
  return option;
}

const char* SamplingParamRow::TypeName() const {
  constexpr const char* kNames[] = {"boolean", "integer", "integer", "number",
                                    "list",    "list",    "list"};
  static_assert(std::size(kNames) == std::variant_size_v<SamplingField>);
  return kNames[field.index()];
}

std::string SamplingParamRow::RangeText() const {
  if (std::holds_alternative<bool P::*>(field)) return "true or false";
  if (std::holds_alternative<std::vector<std::string> P::*>(field)) {
    return "non-empty strings, at most " + std::to_string(kMaxDryBreakers);
  }
  if (std::holds_alternative<std::vector<LogitBias> P::*>(field)) {
    return "TOKEN=BIAS with a token id from 0 and a number, -inf or false, at most " +
           std::to_string(kMaxLogitBiases);
  }
  if (std::holds_alternative<std::optional<std::vector<std::string>> P::*>(field)) {
    std::string names, letters;
    for (const SamplerStageRow& stage : SamplerStages()) {
      names += (names.empty() ? "" : " ") + std::string(stage.name);
      letters += stage.letter;
    }
    return "stages out of: " + names + " (letters " + letters + ")";
  }
  std::string text = std::holds_alternative<float P::*>(field) ? "a number" : "an integer";
  text += " from " + NumberText(min) + " to ";
  return text + (max == kIntMax       ? std::to_string(static_cast<int32_t>(kIntMax))
                 : max == kRandomSeed ? std::to_string(kRandomSeed)
                                      : NumberText(max));
}

std::string SamplingParamRow::Text(const SamplingParams& params) const {
  return std::visit([&](auto member) { return ToText(params.*member); }, field);
}

std::string SamplingParamRow::DefaultText() const { return Text(SamplingParams()); }

void SetByName(SamplingParams* params, std::string_view name, std::string_view text) {
  const SamplingParamRow& row = FindOrFail(name);
  std::visit(
      [&](auto member) {
        auto value = params->*member;
        Parse(row, text, &value);
        Check(row, value);
        params->*member = std::move(value);
      },
      row.field);
}

void SetListByName(SamplingParams* params, std::string_view name,
                   std::span<const std::string> values) {
  const SamplingParamRow& row = FindOrFail(name);
  std::vector<std::string> list(values.begin(), values.end());
  if (const auto* stages = std::get_if<std::optional<std::vector<std::string>> P::*>(&row.field)) {
    std::optional<std::vector<std::string>> value(std::move(list));
    Check(row, value);
    params->*(*stages) = std::move(value);
  } else if (const auto* strings = std::get_if<std::vector<std::string> P::*>(&row.field)) {
    Check(row, list);
    params->*(*strings) = std::move(list);
  } else {
    Fail(ErrorCode::kInvalidArgument, "sampling parameter '%s' is a list of strings; it takes %s",
         row.name, row.RangeText().c_str());
  }
}

void Validate(const SamplingParams& params) {
  for (const SamplingParamRow& row : kTable) {
    std::visit([&](auto member) { Check(row, params.*member); }, row.field);
  }
}

std::string SamplingParamsHelp() {
  std::string help;
  for (const SamplingParamRow& row : kTable) {
    help += row.OptionName() + " (" + row.TypeName() + ", default " + row.DefaultText() +
            ")\n    " + row.description + " Takes " + row.RangeText() + ".\n";
  }
  return help;
}

}  // namespace lutra
