#include "cli/sampling_options.h"

#include <string>

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra::cli {
namespace {

// Metadata key (behind "general.sampling.") and the parameter it advises on.
constexpr struct {
  const char* key;
  const char* param;
} kAdvice[] = {
    {"temp", "temperature"},
    {"top_k", "top_k"},
    {"top_p", "top_p"},
    {"min_p", "min_p"},
    {"xtc_probability", "xtc_probability"},
    {"xtc_threshold", "xtc_threshold"},
    {"penalty_last_n", "repeat_last_n"},
    {"penalty_repeat", "repeat_penalty"},
    {"mirostat", "mirostat"},
    {"mirostat_tau", "mirostat_tau"},
    {"mirostat_eta", "mirostat_eta"},
};

std::string AllNames(const SamplingParamRow& row) {
  std::string names = row.OptionName();
  if (*row.alias != '\0') {
    std::string alias = std::string("--") + row.alias;
    for (char& c : alias) {
      if (c == '_') c = '-';
    }
    names += "," + alias;
  }
  return names;
}

}  // namespace

void AddSamplingOptions(CLI::App& app, SamplingParams* params) {
  for (const SamplingParamRow& row : SamplingParamTable()) {
    const std::string name = row.name;
    const auto set = [params, name](const std::string& text) {
      try {
        SetByName(params, name, text);
      } catch (const Error& e) {
        throw CLI::ValidationError(e.what());
      }
    };
    CLI::Option* option;
    if (std::holds_alternative<bool SamplingParams::*>(row.field)) {
      option = app.add_flag_callback(
          AllNames(row), [set] { set("true"); }, row.description);
    } else {
      option = app.add_option_function<std::string>(AllNames(row), set, row.description);
      option->type_name(row.TypeName())->default_str(row.DefaultText());
    }
    option->group("Sampling");
  }
}

void ApplyModelAdvice(const GgufFile& file, const CLI::App& app, SamplingParams* params) {
  for (const auto& advice : kAdvice) {
    const std::string key = std::string("general.sampling.") + advice.key;
    const GgufValue* value = file.Find(key);
    const SamplingParamRow* row = FindSamplingParam(advice.param);
    if (value == nullptr || row == nullptr || value->is_array() || value->type == GgufType::kString)
      continue;
    if (app.get_option(row->OptionName())->count() > 0) continue;
    const auto whole = value->AsInt();
    const std::string text = whole ? std::to_string(*whole) : Format("%.9g", value->AsDouble());
    try {
      SetByName(params, advice.param, text);
    } catch (const Error& e) {
      Log(LogLevel::kWarning, "%s: key %s ignored: %s", file.path().c_str(), key.c_str(), e.what());
    }
  }
}

}  // namespace lutra::cli
