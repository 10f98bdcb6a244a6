#include <functional>
#include <limits>
#include <set>

#include "engine/limits.h"
#include "engine/sampler.h"
#include "engine/sampling_params.h"
#include "kernels/base/error.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

std::string MessageOf(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("The defaults are valid, and every row reads back what it prints") {
  const SamplingParams defaults;
  CHECK_NOTHROW(Validate(defaults));
  std::set<std::string> names;
  for (const SamplingParamRow& row : SamplingParamTable()) {
    INFO(row.name);
    CHECK(names.insert(row.name).second);
    if (*row.alias != '\0') CHECK(names.insert(row.alias).second);
    CHECK(FindSamplingParam(row.name) == &row);
    CHECK(FindSamplingParam(row.OptionName().substr(2)) == &row);
    SamplingParams params;
    SetByName(&params, row.name, row.DefaultText());
    CHECK(row.Text(params) == row.DefaultText());
    CHECK(std::string(row.description).back() == '.');
    CHECK(Contains(SamplingParamsHelp(), row.OptionName() + " ("));
  }
  CHECK(names.size() > 27);
}

TEST_CASE("Defaults are llama.cpp's") {
  const std::pair<const char*, const char*> expected[] = {{"seed", "4294967295"},
                                                          {"top_k", "40"},
                                                          {"top_p", "0.95"},
                                                          {"min_p", "0.05"},
                                                          {"typical_p", "1"},
                                                          {"top_n_sigma", "-1"},
                                                          {"xtc_probability", "0"},
                                                          {"xtc_threshold", "0.1"},
                                                          {"temperature", "0.8"},
                                                          {"dynatemp_range", "0"},
                                                          {"dynatemp_exponent", "1"},
                                                          {"repeat_last_n", "64"},
                                                          {"repeat_penalty", "1"},
                                                          {"frequency_penalty", "0"},
                                                          {"presence_penalty", "0"},
                                                          {"dry_multiplier", "0"},
                                                          {"dry_base", "1.75"},
                                                          {"dry_allowed_length", "2"},
                                                          {"dry_penalty_last_n", "64"},
                                                          {"dry_sequence_breakers", "\\n,:,\",*"},
                                                          {"mirostat", "0"},
                                                          {"mirostat_tau", "5"},
                                                          {"mirostat_eta", "0.1"},
                                                          {"min_keep", "0"},
                                                          {"samplers", "default"},
                                                          {"ignore_eos", "false"},
                                                          {"logit_bias", "none"}};
  CHECK(std::size(expected) == SamplingParamTable().size());
  for (const auto& [name, text] : expected) {
    REQUIRE_MESSAGE(FindSamplingParam(name) != nullptr, name);
    CHECK_MESSAGE(FindSamplingParam(name)->DefaultText() == text, name);
  }
}

TEST_CASE("Numbers outside their range are refused with name, value and range") {
  for (const SamplingParamRow& row : SamplingParamTable()) {
    if (std::string(row.TypeName()) != "number" && std::string(row.TypeName()) != "integer")
      continue;
    INFO(row.name);
    SamplingParams params;
    SetByName(&params, row.name, row.Text(params));
    for (const char* bad :
         {"", "x", "1x", "nan", "inf", "1e99", "-99999999999", "99999999999", " 1"}) {
      const std::string message = MessageOf([&] { SetByName(&params, row.name, bad); });
      CHECK_MESSAGE(Contains(message, std::string("'") + row.name + "'"), bad);
      CHECK(Contains(message, row.RangeText()));
      CHECK(row.Text(params) == row.DefaultText());
    }
  }
  SamplingParams params;
  CHECK(MessageOf([&] { SetByName(&params, "top-p", "1.5"); }) ==
        "sampling parameter 'top_p' is '1.5'; it takes a number from 0 to 1");
  params.top_p = 1.5f;
  CHECK(Contains(MessageOf([&] { Validate(params); }), "'top_p' is '1.5'"));
  params = {};
  params.temperature = std::numeric_limits<float>::quiet_NaN();
  CHECK(Contains(MessageOf([&] { Validate(params); }), "'temperature' is 'nan'"));
  params = {};
  params.repeat_penalty = 0.0f;
  CHECK(Contains(MessageOf([&] { Validate(params); }), "repeat_penalty"));
  CHECK(Contains(MessageOf([&] { SetByName(&params, "tempreature", "1"); }), "there are: seed"));
}

TEST_CASE("Values are set by name, alias, option spelling") {
  SamplingParams params;
  SetByName(&params, "temp", "0.25");
  SetByName(&params, "top-k", "7");
  SetByName(&params, "seed", "-1");
  CHECK(params.temperature == 0.25f);
  CHECK(params.top_k == 7);
  CHECK(params.seed == kRandomSeed);
  SetByName(&params, "seed", "4294967294");
  CHECK(params.seed == 4294967294u);
  SetByName(&params, "ignore_eos", "on");
  CHECK(params.ignore_eos);
  CHECK(Contains(MessageOf([&] { SetByName(&params, "ignore_eos", "maybe"); }), "true or false"));
}

TEST_CASE("Stages are given by names, letters or as a list") {
  SamplingParams params;
  const auto text = [&] { return FindSamplingParam("samplers")->Text(params); };
  SetByName(&params, "samplers", "edskypmxt");
  CHECK(text() == "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature");
  SetByName(&params, "samplers", "temp; top-k,typical-p");
  CHECK(params.samplers->size() == 3);
  SetByName(&params, "samplers", "dry");
  CHECK(text() == "dry");
  SetByName(&params, "samplers", "none");
  CHECK((params.samplers.has_value() && params.samplers->empty()));
  SetByName(&params, "samplers", "default");
  CHECK(!params.samplers.has_value());
  for (const char* bad : {"kz", "top_k;topp", "i", "a", ";", "top_k;"}) {
    CHECK_MESSAGE(
        Contains(MessageOf([&] { SetByName(&params, "samplers", bad); }), "stages out of"), bad);
  }
  const std::vector<std::string> list = {"top_k", "temperature"};
  SetListByName(&params, "samplers", list);
  CHECK(params.samplers == list);
  CHECK(Contains(MessageOf([&] { SetListByName(&params, "top_k", list); }), "top_k"));
  params.samplers = std::vector<std::string>(kMaxSamplerStages + 1, "top_k");
  CHECK(Contains(MessageOf([&] { Validate(params); }), "at most 32"));
}

TEST_CASE("DRY breakers and logit biases are lists of text") {
  SamplingParams params;
  SetByName(&params, "dry_sequence_breaker", "\\n,a\\,b,\\\\,\"");
  CHECK(params.dry_sequence_breakers == std::vector<std::string>{"\n", "a,b", "\\", "\""});
  const std::string text = FindSamplingParam("dry_sequence_breakers")->Text(params);
  SamplingParams again;
  SetByName(&again, "dry_sequence_breakers", text);
  CHECK(again.dry_sequence_breakers == params.dry_sequence_breakers);
  SetByName(&params, "dry_sequence_breakers", "none");
  CHECK(params.dry_sequence_breakers.empty());
  for (const char* bad : {"a,,b", "a\\", "\\q"}) {
    CHECK_MESSAGE(!MessageOf([&] { SetByName(&params, "dry_sequence_breakers", bad); }).empty(),
                  bad);
  }
  SetByName(&params, "logit_bias", "5=1.5, 7=-inf,8=false,9=+2");
  REQUIRE(params.logit_bias.size() == 4);
  CHECK(params.logit_bias[0].bias == 1.5f);
  CHECK(params.logit_bias[1].bias == -std::numeric_limits<float>::infinity());
  CHECK(params.logit_bias[2].bias == -std::numeric_limits<float>::infinity());
  CHECK(params.logit_bias[3].token == 9);
  CHECK_NOTHROW(Validate(params));
  for (const char* bad : {"5", "-1=1", "5=inf", "5=nan", "5=x", "=1", "5=1,"}) {
    CHECK_MESSAGE(!MessageOf([&] { SetByName(&params, "logit_bias", bad); }).empty(), bad);
  }
  CHECK(params.logit_bias.size() == 4);
}

TEST_CASE("Stages have distinct names and letters") {
  std::set<std::string> names;
  std::set<char> letters;
  for (const SamplerStageRow& row : SamplerStages()) {
    CHECK(names.insert(row.name).second);
    CHECK(letters.insert(row.letter).second);
    CHECK(FindSamplerStage(row.name) == &row);
    CHECK(FindSamplerStage(row.letter) == &row);
  }
  CHECK(FindSamplerStage("nothing") == nullptr);
  CHECK(FindSamplerStage("") == nullptr);
}

}  // namespace lutra
