// Thoughts and tool calls in a model's text, however it is cut into pieces.
#include "server/output_parser.h"

#include <random>

#include "engine/grammar/automaton.h"
#include "server/api_error.h"
#include "server/constrain.h"
#include "server/schema_grammar.h"
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
  size_t n_pieces = 0;  // of arguments
};

Parsed Parse(const OutputFormat& format, const std::string& text, size_t piece) {
  OutputParser parser(format);
  Parsed out;
  std::vector<std::pair<std::string, std::string>> calls;
  const auto take = [&](const OutputDelta& d) {
    out.content += d.content;
    out.reasoning += d.reasoning;
    for (const auto& c : d.calls) {
      if (!c.id.empty()) {
        CHECK(c.index == calls.size());
        CHECK(c.id.starts_with("call_"));
        CHECK(c.arguments.empty());
        calls.emplace_back(c.name, "");
      } else {
        REQUIRE(c.index + 1 == calls.size());
        CHECK(c.name.empty());
        calls.back().second += c.arguments;
        ++out.n_pieces;
      }
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
  for (const auto& [name, arguments] : calls) {
    INFO(arguments);
    const Json json = Json::parse(arguments, nullptr, false);
    CHECK_FALSE(json.is_discarded());
    out.calls.emplace_back(name, json);
  }
  return out;
}

Json Object(Json properties, Json required = Json::array()) {
  return {
      {"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)}};
}

std::shared_ptr<const server::Tools> TestTools() {
  return std::make_shared<const server::Tools>(
      server::Tools{{"weather", Object({{"city", {{"type", "string"}}},
                                        {"days", {{"type", "integer"}}},
                                        {"where", {{"type", {"string", "null"}}}},
                                        {"when", Json::object()},
                                        {"unit", {{"enum", {"C", "F"}}}},
                                        {"list", {{"type", "array"}}}})},
                    {"time", Object(Json::object())}});
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
      {"hermes",
       "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", \"days\": "
       "3}}\n</tool_call>",
       "",
       {{"weather", berlin}}},
      {"hermes",
       "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", "
       "\"days\": 3}}\n</tool_call>\n<tool_call>{\"name\":\"time\",\"arguments\":{}}</tool_call>",
       "Let me see.",
       {{"weather", berlin}, {"time", Json::object()}}},
      {"hermes",
       "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"}\\\"{\"}}</tool_call>",
       "",
       {{"weather", {{"city", "}\"{"}}}}},
      {"hermes",
       "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": 1}\"}</tool_call>",
       "",
       {{"weather", {{"city", 1}}}}},
      {"hermes",
       "<tool_call>{\"name\": \"weather\", \"arguments\": {}}",
       "",
       {{"weather", Json::object()}}},
      {"hermes",
       "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>",
       "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>",
       {}},
      {"hermes", "<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", {}},
      {"hermes", "<tool_call>not json", "<tool_call>not json", {}},
      {"hermes", "a <tool in words", "a <tool in words", {}},
      {"llama3",
       "{\"name\": \"weather\", \"parameters\": {\"city\": \"Berlin\", \"days\": 3}}",
       "",
       {{"weather", berlin}}},
      {"llama3",
       "<|python_tag|>{\"name\": \"time\", \"parameters\": {}}; {\"name\": \"weather\", "
       "\"parameters\": {\"city\": \"Berlin\", \"days\": 3}}",
       "",
       {{"time", Json::object()}, {"weather", berlin}}},
      {"llama3",
       "{\"type\": \"function\", \"function\": {\"name\": \"time\", \"parameters\": {}}}",
       "",
       {{"time", Json::object()}}},
      {"llama3", "{\"answer\": 42}", "{\"answer\": 42}", {}},
      {"llama3", "A text with {braces} in it", "A text with {braces} in it", {}},
      {"mistral",
       "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", \"days\": 3}}, "
       "{\"name\": \"time\", \"arguments\": {}}]",
       "",
       {{"weather", berlin}, {"time", Json::object()}}},
      {"mistral",
       "[TOOL_CALLS]weather[ARGS]{\"city\": \"Berlin\", \"days\": 3}[TOOL_CALLS]time[ARGS]{}",
       "",
       {{"weather", berlin}, {"time", Json::object()}}},
      {"mistral", "[TOOL_CALLS] nothing", "[TOOL_CALLS] nothing", {}},
      {"mistral",
       "[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{\"city\": \"Berlin\", \"days\": 3}",
       "",
       {{"weather", berlin}}},
      {"mistral", "[TOOL_CALLS]{\"name\": \"time\"}", "", {{"time", Json::object()}}},
      {"mistral",
       "[TOOL_CALLS][{\"name\": \"time\", \"arguments\": {}",
       "[TOOL_CALLS][{\"name\": \"time\", \"arguments\": {}",
       {}},
      {"xml",
       "<tool_call>\n<function=weather>\n<parameter=city>\nBerlin\n</"
       "parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
       "",
       {{"weather", berlin}}},
      {"xml",
       "I "
       "look.\n<tool_call>\n<function=time>\n</function>\n</"
       "tool_call>\n<tool_call><function=weather><parameter=city>Berlin</parameter>"
       "<parameter=days> 3 </parameter></function></tool_call>",
       "I look.",
       {{"time", Json::object()}, {"weather", berlin}}},
      // Values are text; what is none by the schema is JSON. The opening tag may be missing, at the end the closing one.
      {"xml",
       "<function=weather>\n<parameter=city>\n</para "
       "\"x\"\n\n</parameter>\n<parameter=where>\nnull\n</parameter>\n<parameter=when>\n[1, "
       "2]\n</parameter>\n"
       "<parameter=unit>\nC\n</parameter>\n<parameter=list>\n[]\n</parameter>\n</function>",
       "",
       {{"weather",
         {{"city", "</para \"x\"\n"},
          {"where", nullptr},
          {"when", {1, 2}},
          {"unit", "C"},
          {"list", Json::array()}}}}},
      {"xml",
       "<tool_call>\n<function=weather>\n<parameter=where>\n12\n</parameter>\n<parameter=when>\n12 "
       "o'clock\n</parameter>\n<parameter=days>\nmany\n</parameter>\n</function>\n</tool",
       "",
       {{"weather", {{"where", "12"}, {"when", "12 o'clock"}, {"days", "many"}}}}},
      {"xml",
       "<tool_call>\n<function=nobody>\n</function>\n</tool_call>",
       "<tool_call>\n<function=nobody>\n</function>\n</tool_call>",
       {}},
      {"xml",
       "<tool_call>\n<function=weather>\n<parameter=city>\nBer",
       "<tool_call>\n<function=weather>\n<parameter=city>\nBer",
       {}},
      {"xml",
       "<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n<parameter=city>\nb\n</"
       "parameter>\n</function>",
       "<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n<parameter=city>\nb\n</"
       "parameter>\n</function>",
       {}},
  };
  for (const Case& c : cases) {
    OutputFormat format;
    format.syntax = Syntax(c.syntax);
    format.tools = TestTools();
    for (const size_t piece : {1, 2, 3, 7, 1000}) {
      INFO(c.text, " in pieces of ", piece);
      const Parsed p = Parse(format, c.text, piece);
      CHECK(p.content == c.content);
      CHECK(p.calls == c.calls);
    }
  }
}

TEST_CASE(
    "Calls that a grammar governs are given out while they are written, and only those that it "
    "would write") {
  for (const ToolSyntax* syntax : server::AllToolSyntaxes()) {
    INFO(syntax->name());
    OutputFormat format;
    format.syntax = syntax;
    format.tools = TestTools();
    std::vector<std::string> relaxed;
    GrammarAutomaton grammar(std::make_shared<Grammar>(
        syntax->Grammar(*format.tools, true, &relaxed) + server::JsonRules()));
    CHECK(relaxed.empty());
    std::mt19937 rng(11);
    size_t long_calls = 0;
    for (int round = 0; round < 60; ++round) {
      // A random text of the grammar; text goes on rather than being ended, until it is long.
      std::string text;
      GrammarAutomaton::State s = grammar.start();
      while (!grammar.can_end(s) || (text.size() < 200 && !grammar.only_end(s))) {
        std::vector<char> next, closing;
        for (int b = 1; b < 127; ++b) {
          if (grammar.Step(s, static_cast<uint8_t>(b)) == GrammarAutomaton::kDead) continue;
          next.push_back(static_cast<char>(b));
          if (std::string("\"}]</>").find(static_cast<char>(b)) != std::string::npos)
            closing.push_back(static_cast<char>(b));
        }
        REQUIRE_FALSE(next.empty());
        const auto& from = text.size() > 150 && !closing.empty() && rng() % 8 != 0 ? closing : next;
        text += from[rng() % from.size()];
        s = grammar.Step(s, static_cast<uint8_t>(text.back()));
        if (text.size() > 5000) break;
      }
      if (text.size() > 5000) continue;
      INFO(text);
      const Parsed whole = Parse(format, text, 100000);
      CHECK(whole.content.empty());
      CHECK_FALSE(whole.calls.empty());
      OutputFormat live = format;
      live.calls_hold = true;
      for (const size_t piece : {1, 5, 100000}) {
        const Parsed p = Parse(live, text, piece);
        CHECK(p.content.empty());
        CHECK(p.calls == whole.calls);
        long_calls += piece == 1 && p.n_pieces > 10;
      }
      // Cut anywhere: what was given out stays, a call of which nothing was known is text.
      const std::string cut = text.substr(0, rng() % text.size());
      OutputParser parser(live);
      OutputDelta d;
      parser.Feed(cut, &d);
      parser.Finish(&d);
      CHECK((d.content.empty() || cut.ends_with(d.content)));
    }
    CHECK(long_calls > 5);
  }
}

TEST_CASE("Thoughts before calls") {
  OutputFormat format;
  format.reasoning = {"<think>", "</think>"};
  format.syntax = Syntax("hermes");
  format.tools = TestTools();
  for (const size_t piece : {1, 5, 100}) {
    const Parsed p =
        Parse(format,
              "<think>I need <tool_call> the "
              "time</think>\n<tool_call>{\"name\":\"time\",\"arguments\":{}}</tool_call>",
              piece);
    CHECK(p.reasoning == "I need <tool_call> the time");
    CHECK(p.content.empty());
    CHECK(p.calls.size() == 1);
  }
}

TEST_CASE("Syntaxes are found in templates") {
  CHECK(std::string(server::SyntaxOf("... <tool_call> ...")->name()) == "hermes");
  CHECK(std::string(server::SyntaxOf("... [TOOL_CALLS] ...")->name()) == "mistral");
  CHECK(std::string(server::SyntaxOf("[TOOL_CALLS] name [ARGS]")->name()) == "mistral_args");
  CHECK(std::string(server::SyntaxOf("[TOOL_CALLS] name [CALL_ID] id [ARGS]")->name()) ==
        "mistral_id_args");
  CHECK(std::string(server::SyntaxOf("<|start_header_id|>")->name()) == "llama3");
  const Json coder = Json::parse(testing::ReadText(LUTRA_TEST_DATA "/templates/coder_like.json"));
  CHECK(std::string(server::SyntaxOf(coder["template"].get<std::string>())->name()) == "xml");
}

TEST_CASE("Calls that a model makes by itself are governed from their trigger on") {
  const testing::TestServer server;
  const server::ServedModel& model = *server.server->app().models()[0];
  const Tokenizer& tokenizer = model.tokenizer();
  const auto form_of = [&](Json more) {
    Json body = {
        {"tools", Json::array({{{"type", "function"},
                                {"function",
                                 {{"name", "weather"},
                                  {"parameters", Object({{"city", {{"enum", {"Berlin", "Paris"}}}},
                                                         {"days", {{"type", "integer"}}}},
                                                        {"city", "days"})}}}},
                               {{"type", "function"},
                                {"function",
                                 {{"name", "odd"},
                                  {"parameters", {{"type", "object"}, {"minProperties", 2}}}}}}})}};
    body.update(more);
    const server::Params params = server::ReadParams(body, server::kChat, {});
    OutputFormat format;
    format.reasoning = {"<think>", "</think>"};
    return server::PlanAnswer(params, server::PlanTools(params, model), format, model);
  };
  const auto write = [&](TokenConstraint& constraint, const std::string& text) {
    for (const int32_t id : tokenizer.Encode(text, false, false)) {
      CHECK(constraint.Allows(id));
      constraint.Accept(id);
    }
  };
  std::mt19937 rng(3);
  for (const bool parallel : {false, true}) {
    const auto form = form_of({{"parallel_tool_calls", parallel}});
    CHECK(form.relaxed == std::vector<std::string>{"odd"});
    CHECK(form.format.calls_hold);
    for (int round = 0; round < 10; ++round) {
      const auto constraint = form.constraint();
      std::string text = round % 2 == 0
                             ? "<think>a <tool_call> in thoughts</think>I look.\n<tool_call>"
                             : "<tool_call>";
      write(*constraint, text);
      REQUIRE(constraint->active());
      while (!constraint->done() && text.size() < 3000) {
        std::vector<int32_t> tokens = constraint->Forced();
        if (tokens.empty()) {
          const TokenMask& mask = constraint->Mask();
          std::vector<int32_t> allowed;
          for (int32_t id = 0; id < tokenizer.n_vocab(); ++id) {
            if (mask.Allows(id)) allowed.push_back(id);
          }
          REQUIRE_FALSE(allowed.empty());
          tokens = {allowed[rng() % allowed.size()]};
        }
        for (const int32_t id : tokens) {
          constraint->Accept(id);
          if (!tokenizer.IsEog(id)) text += tokenizer.TokenToPiece(id, false);
        }
      }
      if (!constraint->done()) continue;
      INFO(text);
      const Parsed p = Parse(form.format, text, 4);
      CHECK(p.content == (round % 2 == 0 ? "I look." : ""));
      REQUIRE_FALSE(p.calls.empty());
      if (!parallel) CHECK(p.calls.size() == 1);
      for (const auto& [name, arguments] : p.calls) {
        CHECK(arguments.is_object());
        if (name == "odd") continue;
        CHECK(name == "weather");
        CHECK((arguments["city"] == "Berlin" || arguments["city"] == "Paris"));
        CHECK(arguments["days"].is_number_integer());
      }
    }
  }
  // Text that no call begins with leaves everything free.
  const auto constraint = form_of(Json::object()).constraint();
  write(*constraint, "The tag <tool_call is one that I know, and {\"name\": 1} none.");
  CHECK_FALSE(constraint->active());
  // An answer's form, or a call.
  const auto either = form_of({{"json_schema", {{"type", "integer"}}}}).constraint();
  REQUIRE(either->active());
  CHECK(either->Allows(tokenizer.Encode("7", false, false).back()));
  // Schemas that cannot be said are refused where strictness is asked for, and where a user's grammar stands against a call.
  const Json strict =
      Json::array({{{"type", "function"},
                    {"function",
                     {{"name", "odd"},
                      {"strict", true},
                      {"parameters", {{"type", "object"}, {"minProperties", 2}}}}}}});
  CHECK_THROWS_AS(form_of({{"tools", strict}}), server::ApiError);
  CHECK_THROWS_AS(form_of({{"grammar", "root ::= \"a\""}, {"tool_choice", "required"}}),
                  server::ApiError);
  CHECK_FALSE(form_of({{"grammar", "root ::= \"a\""}}).format.calls_hold);
}

TEST_CASE("A required call is made, streamed as clients expect, and has valid arguments") {
  const testing::TestServer server;
  const Json tools =
      Json::array({{{"type", "function"},
                    {"function",
                     {{"name", "get_weather"},
                      {"parameters",
                       {{"type", "object"},
                        {"properties",
                         {{"city", {{"enum", {"Berlin", "Paris"}}}},
                          {"days", {{"type", "integer"}, {"minimum", 1}, {"maximum", 14}}}}},
                        {"required", {"city", "days"}},
                        {"additionalProperties", false}}}}}},
                   {{"type", "function"},
                    {"function",
                     {{"name", "get_time"},
                      {"parameters", {{"type", "object"}, {"properties", Json::object()}}}}}}});
  for (const Json& choice :
       {Json("required"), Json{{"type", "function"}, {"function", {{"name", "get_weather"}}}}}) {
    for (int seed = 0; seed < 4; ++seed) {
      const Json body = {
          {"messages", Json::array({{{"role", "user"}, {"content", "What is the weather?"}}})},
          {"tools", tools},
          {"tool_choice", choice},
          {"seed", seed},
          {"temperature", 1},
          {"max_tokens", 300},
          {"parallel_tool_calls", false}};
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
      size_t pieces = 0;
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
        ++pieces;
      }
      CHECK(pieces > 3);
      CHECK(streamed_name == name);
      CHECK(Json::parse(streamed_arguments) == arguments);
      CHECK(finish == "tool_calls");
    }
  }
  const auto post = [&](Json more) {
    Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "x"}}})},
                 {"tools", tools},
                 {"max_tokens", 4}};
    body.update(more);
    return server.Post("/v1/chat/completions", body);
  };
  CHECK(post({{"tool_choice", "auto"}}).status == 200);
  CHECK(post({{"tool_choice", "none"}}).status == 200);
  // With a form for answers too, it is one or the other.
  for (int seed = 0; seed < 4; ++seed) {
    const auto a = post(
        {{"tool_choice", "auto"},
         {"seed", seed},
         {"temperature", 2},
         {"max_tokens", 300},
         {"parallel_tool_calls", false},
         {"response_format",
          {{"type", "json_schema"}, {"json_schema", {{"schema", {{"enum", {"yes", "no"}}}}}}}}});
    INFO(a.body);
    REQUIRE(a.status == 200);
    const Json& c = a.json["choices"][0];
    const bool answered =
        c["message"]["content"] == "\"yes\"" || c["message"]["content"] == "\"no\"";
    const bool called = c["finish_reason"] == "tool_calls" || c["finish_reason"] == "length";
    CHECK(answered != called);
  }
  CHECK(post({{"tool_choice", "maybe"}}).status == 400);
  CHECK(post({{"tool_choice", {{"type", "function"}, {"function", {{"name", "nobody"}}}}}})
            .json["error"]["param"] == "tool_choice.function.name");
  CHECK(post({{"tools", {1}}}).json["error"]["param"] == "tools[0]");
  CHECK(post({{"tools", Json::array({{{"type", "function"}}})}}).json["error"]["param"] ==
        "tools[0].function");
  CHECK(post({{"tools", Json::array()}, {"tool_choice", "required"}}).status == 400);
}

}  // namespace lutra
