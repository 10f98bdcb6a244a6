// The template engine against what the original renders: published templates (from the shared
// reference material), and snippets and templates of our own writing (tests/data, README.md there).
#include "models/chat/jinja/jinja.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/test_util.h"

namespace lutra::jinja {
namespace {

using Json = nlohmann::ordered_json;

std::tm ParseTime(const std::string& text) {  // 2026-07-26T09:05:03
  std::tm t = {};
  REQUIRE(strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &t) != nullptr);
  return t;
}

// Renders one case and compares with "expected", or wants an Error where "error" is given.
void CheckCase(const std::string& source, const Json& context, const Json& test,
               const RenderOptions& options) {
  std::string rendered;
  bool refused = false;
  std::string message;
  std::string raised = "(nothing)";
  try {
    rendered = Template::Parse(source).Render(context, options);
  } catch (const Error& e) {
    refused = true;
    message = e.what();
    CHECK(message.find("chat template, line ") == 0);
    if (const auto* r = dynamic_cast<const TemplateRaised*>(&e)) raised = r->message();
  }
  if (test.contains("error")) {
    const std::string error = test["error"];
    CHECK_MESSAGE(refused, "should be refused: " << error << ", gave: " << rendered);
    constexpr std::string_view kRaised = "TemplateError: ";  // what raise_exception raises there
    if (error.starts_with(kRaised)) CHECK(raised == error.substr(kRaised.size()));
  } else {
    CHECK_MESSAGE(!refused, message);
    if (!refused) CHECK(rendered == test["expected"].get<std::string>());
  }
}

// {template, bos_token, eos_token, now, cases: [{name, input, expected | error}]}
size_t CheckFile(const std::string& path) {
  const Json file = Json::parse(lutra::testing::ReadText(path));
  RenderOptions options;
  options.now = ParseTime(file["now"]);
  for (const Json& test : file["cases"]) {
    INFO(path << " " << test["name"]);
    Json context = test["input"];
    context["bos_token"] = file["bos_token"];
    context["eos_token"] = file["eos_token"];
    CheckCase(file["template"], context, test, options);
  }
  return file["cases"].size();
}

size_t CheckFolder(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  size_t n = 0;
  for (const std::string& path : paths) n += CheckFile(path);
  return n;
}

TEST_CASE("published templates render every conversation as the original does") {
  LUTRA_REQUIRE_SHARED(shared);
  CHECK(CheckFolder(shared + "/golden/templates") >= 16 * 14);
}

TEST_CASE("templates written like the families' render as the original does") {
  CHECK(CheckFolder(std::string(LUTRA_TEST_DATA) + "/templates") >= 80);
}

TEST_CASE("snippets render as the original does") {
  const Json file =
      Json::parse(lutra::testing::ReadText(std::string(LUTRA_TEST_DATA) + "/jinja_cases.json"));
  RenderOptions options;
  options.now = ParseTime("2026-07-26T09:05:03");
  CHECK(file["cases"].size() >= 1000);
  for (const Json& test : file["cases"]) {
    INFO(test["template"]);
    CheckCase(test["template"], file["context"], test, options);
  }
}

}  // namespace
}  // namespace lutra::jinja
