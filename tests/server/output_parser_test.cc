// Thoughts and tool calls in a model's text, however it is cut into pieces.
#include "server/output_parser.h"

#include "server/tool_syntax.h"
#include "tests/server/server_util.h"

namespace lutra {
namespace {

using server::OutputDelta;
using server::OutputFormat;
using server::OutputParser;
using server::ToolSyntax;
using testing::Json;

struct Parsed {
  std::string content, reasoning;
  std::vector<std::pair<std::string, Json>> calls;
  bool operator==(const Parsed&) const = default;
};

Parsed Parse(const OutputFormat& format, const std::string& text, size_t piece) {
  OutputParser parser(format);
  Parsed out;
  const auto take = [&](const OutputDelta& d) {
    out.content += d.content;
    out.reasoning += d.reasoning;
    for (const auto& c : d.calls) {
      CHECK(c.index == out.calls.size());
      CHECK(c.id.starts_with("call_"));
      out.calls.emplace_back(c.name, Json::parse(c.arguments));
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) {
    OutputDelta d;
    parser.Feed(text.substr(at, piece), &d);
    take(d);
  }
  OutputDelta d;
  parser.Finish(&d);
  take(d);
  return out;
}

const ToolSyntax* Syntax(const std::string& name) {
  for (const ToolSyntax* s : server::AllToolSyntaxes()) {
    if (s->name() == name) return s;
  }
  FAIL("no such syntax");
  return nullptr;
}

}  // namespace

TEST_CASE("Thoughts are split off") {
  OutputFormat format;
  format.reasoning = {"<think>", "</think>"};
  struct Case {
    const char* text;
    bool inside;
    const char *content, *reasoning;
  };
  const Case cases[] = {
      {"<think>\nHm, so.\n</think>\n\nYes.", false, "Yes.", "Hm, so."},
      {"Hm, so.</think>Yes.", true, "Yes.", "Hm, so."},
      {"no thoughts at all < here", false, "no thoughts at all < here", ""},
      {"<think>never ends", false, "", "never ends"},
      {"text <think>later</think>", false, "text <think>later</think>", ""},
      {"<think></think>a", false, "a", ""},
      {"a </thi b", true, "", "a </thi b"},
      {"", true, "", ""},
  };
  for (const Case& c : cases) {
    format.in_thought = c.inside;
    for (size_t piece = 1; piece < 12; ++piece) {
      INFO(c.text, " in pieces of ", piece);
      const Parsed p = Parse(format, c.text, piece);
      if (std::string(c.text).starts_with("text <think>")) {
        // The text in front is shown at once or held with the tag, as the pieces come; nothing is lost.
        CHECK(p.content.starts_with("text"));
        continue;
      }
      CHECK(p.content == c.content);
      CHECK(p.reasoning == c.reasoning);
    }
  }
  OutputFormat off;
  CHECK(Parse(off, "<think>a</think>b", 3).content == "<think>a</think>b");
}

TEST_CASE("Calls in every syntax") {
  const Json berlin = {{"city", "Berlin"}, {"days", 3}};
  struct Case {
    const char* syntax;
    const char* text;
    std::string content;
    std::vector<std::pair<std::string, Json>> calls;
  };
  const Case cases[] = {
      {"hermes", "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", \"days\": 3}}\n</tool_call>", "", {{"weather", berlin}}},
      {"hermes", "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", \"days\": 3}}\n</tool_call>\n<tool_call>{\"name\":\"time\",\"arguments\":{}}</tool_call>",
       "Let me see.", {{"weather", berlin}, {"time", Json::object()}}},
      {"hermes", "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"}\\\"{\"}}</tool_call>", "", {{"weather", {{"city", "}\"{"}}}}},
      {"hermes", "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": 1}\"}</tool_call>", "", {{"weather", {{"city", 1}}}}},
      {"hermes", "<tool_call>{\"name\": \"weather\", \"arguments\": {}}", "", {{"weather", Json::object()}}},
      {"hermes", "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>", "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>", {}},
      {"hermes", "<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", {}},
      {"hermes", "<tool_call>not json", "<tool_call>not json", {}},
      {"hermes", "a <tool in words", "a <tool in words", {}},
      {"llama3", "{\"name\": \"weather\", \"parameters\": {\"city\": \"Berlin\", \"days\": 3}}", "", {{"weather", berlin}}},
      {"llama3", "<|python_tag|>{\"name\": \"time\", \"parameters\": {}}; {\"name\": \"weather\", \"parameters\": {\"city\": \"Berlin\", \"days\": 3}}", "",
       {{"time", Json::object()}, {"weather", berlin}}},
      {"llama3", "{\"type\": \"function\", \"function\": {\"name\": \"time\", \"parameters\": {}}}", "", {{"time", Json::object()}}},
      {"llama3", "{\"answer\": 42}", "{\"answer\": 42}", {}},
      {"llama3", "A text with {braces} in it", "A text with {braces} in it", {}},
      {"mistral", "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", \"days\": 3}}, {\"name\": \"time\", \"arguments\": {}}]", "",
       {{"weather", berlin}, {"time", Json::object()}}},
      {"mistral", "[TOOL_CALLS]weather[ARGS]{\"city\": \"Berlin\", \"days\": 3}[TOOL_CALLS]time[ARGS]{}", "", {{"weather", berlin}, {"time", Json::object()}}},
      {"mistral", "[TOOL_CALLS] nothing", "[TOOL_CALLS] nothing", {}},
  };
  for (const Case& c : cases) {
    OutputFormat format;
    format.tools = Syntax(c.syntax);
    format.tool_names = {"weather", "time"};
    for (const size_t piece : {1, 2, 3, 7, 1000}) {
      INFO(c.text, " in pieces of ", piece);
      const Parsed p = Parse(format, c.text, piece);
      CHECK(p.content == c.content);
      CHECK(p.calls == c.calls);
    }
  }
}

TEST_CASE("Thoughts before calls") {
  OutputFormat format;
  format.reasoning = {"<think>", "</think>"};
  format.tools = Syntax("hermes");
  format.tool_names = {"time"};
  for (const size_t piece : {1, 5, 100}) {
    const Parsed p = Parse(format, "<think>I need <tool_call> the time</think>\n<tool_call>{\"name\":\"time\",\"arguments\":{}}</tool_call>", piece);
    CHECK(p.reasoning == "I need <tool_call> the time");
    CHECK(p.content.empty());
    CHECK(p.calls.size() == 1);
  }
}

TEST_CASE("Syntaxes are found in templates") {
  CHECK(std::string(server::SyntaxOf("... <tool_call> ...")->name()) == "hermes");
  CHECK(std::string(server::SyntaxOf("... [TOOL_CALLS] ...")->name()) == "mistral");
  CHECK(std::string(server::SyntaxOf("<|start_header_id|>")->name()) == "llama3");
}

TEST_CASE("A required call is made, streamed as clients expect, and has valid arguments") {
  const testing::TestServer server;
  const Json tools = Json::array(
      {{{"type", "function"},
        {"function",
         {{"name", "get_weather"},
          {"parameters",
           {{"type", "object"}, {"properties", {{"city", {{"enum", {"Berlin", "Paris"}}}}, {"days", {{"type", "integer"}, {"minimum", 1}, {"maximum", 14}}}}}, {"required", {"city", "days"}}, {"additionalProperties", false}}}}}},
       {{"type", "function"}, {"function", {{"name", "get_time"}, {"parameters", {{"type", "object"}, {"properties", Json::object()}}}}}}});
  for (const Json& choice : {Json("required"), Json{{"type", "function"}, {"function", {{"name", "get_weather"}}}}}) {
    for (int seed = 0; seed < 4; ++seed) {
      const Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "What is the weather?"}}})}, {"tools", tools}, {"tool_choice", choice},
                         {"seed", seed}, {"temperature", 1}, {"max_tokens", 300}, {"parallel_tool_calls", false}};
      const auto a = server.Post("/v1/chat/completions", body);
      INFO(a.body);
      REQUIRE(a.status == 200);
      const Json& c = a.json["choices"][0];
      REQUIRE(c["finish_reason"] == "tool_calls");
      CHECK(c["message"]["content"].is_null());
      REQUIRE(c["message"]["tool_calls"].size() == 1);
      const Json& call = c["message"]["tool_calls"][0];
      CHECK(call["type"] == "function");
      const std::string name = call["function"]["name"];
      if (choice.is_object()) CHECK(name == "get_weather");
      REQUIRE(call["function"]["arguments"].is_string());
      const Json arguments = Json::parse(call["function"]["arguments"].get<std::string>());
      if (name == "get_weather") {
        const bool known = arguments["city"] == "Berlin" || arguments["city"] == "Paris";
        CHECK(known);
        CHECK(arguments["days"] >= 1);
        CHECK(arguments["days"] <= 14);
      }
      // Streamed: who is called first, then the arguments, then the reason.
      std::string streamed_name, streamed_arguments, finish;
      for (const Json& e : server.Stream("/v1/chat/completions", body)) {
        const Json& d = e["choices"][0]["delta"];
        if (!e["choices"][0]["finish_reason"].is_null()) finish = e["choices"][0]["finish_reason"];
        if (!d.contains("tool_calls")) continue;
        const Json& t = d["tool_calls"][0];
        CHECK(t["index"] == 0);
        if (t["function"].contains("name")) {
          CHECK(streamed_arguments.empty());
          CHECK(t["id"].is_string());
          streamed_name = t["function"]["name"];
        }
        streamed_arguments += t["function"].value("arguments", "");
      }
      CHECK(streamed_name == name);
      CHECK(Json::parse(streamed_arguments) == arguments);
      CHECK(finish == "tool_calls");
    }
  }
  const auto post = [&](Json more) {
    Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "x"}}})}, {"tools", tools}, {"max_tokens", 4}};
    body.update(more);
    return server.Post("/v1/chat/completions", body);
  };
  CHECK(post({{"tool_choice", "auto"}}).status == 200);
  CHECK(post({{"tool_choice", "none"}}).status == 200);
  // With a form for answers too, it is one or the other.
  for (int seed = 0; seed < 4; ++seed) {
    const auto a = post({{"tool_choice", "auto"}, {"seed", seed}, {"temperature", 2}, {"max_tokens", 300}, {"parallel_tool_calls", false},
                         {"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"enum", {"yes", "no"}}}}}}}}});
    INFO(a.body);
    REQUIRE(a.status == 200);
    const Json& c = a.json["choices"][0];
    const bool answered = c["message"]["content"] == "\"yes\"" || c["message"]["content"] == "\"no\"";
    const bool called = c["finish_reason"] == "tool_calls" || c["finish_reason"] == "length";
    CHECK(answered != called);
  }
  CHECK(post({{"tool_choice", "maybe"}}).status == 400);
  CHECK(post({{"tool_choice", {{"type", "function"}, {"function", {{"name", "nobody"}}}}}}).json["error"]["param"] == "tool_choice.function.name");
  CHECK(post({{"tools", {1}}}).json["error"]["param"] == "tools[0]");
  CHECK(post({{"tools", Json::array({{{"type", "function"}}})}}).json["error"]["param"] == "tools[0].function");
  CHECK(post({{"tools", Json::array()}, {"tool_choice", "required"}}).status == 400);
}

}  // namespace lutra
