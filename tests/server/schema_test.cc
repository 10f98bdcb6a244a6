// JSON schemas as grammars: what the grammar allows is valid, what is valid (in our spelling) is allowed, the rest is refused by name.
#include "server/schema_grammar.h"

#include <chrono>
#include <cmath>
#include <random>
#include <regex>

#include "engine/grammar/automaton.h"
#include "server/api_error.h"
#include "tests/server/server_util.h"

namespace lutra {
namespace {

using server::ApiError;
using testing::Json;

GrammarAutomaton Automaton(const Json& schema) {
  return GrammarAutomaton(std::make_shared<Grammar>(server::SchemaGrammar(schema, "json_schema")));
}

bool Accepts(const Json& schema, const std::string& text) {
  GrammarAutomaton a = Automaton(schema);
  GrammarAutomaton::State s = a.start();
  for (const char c : text) {
    s = a.Step(s, static_cast<uint8_t>(c));
    if (s == GrammarAutomaton::kDead) return false;
  }
  return a.can_end(s);
}

// A random text of the grammar; ends as soon as it may once it is long.
std::string Generate(GrammarAutomaton& a, std::mt19937& rng) {
  std::string text;
  GrammarAutomaton::State s = a.start();
  while (!a.only_end(s)) {
    if (a.can_end(s) && (text.size() > 60 || rng() % 4 == 0)) break;
    std::vector<uint8_t> next;
    for (int b = 0; b < 256; ++b) {
      if (a.Step(s, static_cast<uint8_t>(b)) != GrammarAutomaton::kDead) next.push_back(static_cast<uint8_t>(b));
    }
    REQUIRE(!next.empty());
    uint8_t byte = next[rng() % next.size()];
    // Closing characters are preferred when it gets long, or free values would never end.
    if (text.size() > 60) {
      for (const char c : std::string("}]\"")) {
        if (std::find(next.begin(), next.end(), static_cast<uint8_t>(c)) != next.end()) byte = static_cast<uint8_t>(c);
      }
    }
    text += static_cast<char>(byte);
    s = a.Step(s, byte);
    if (text.size() > 20000) return "";
  }
  return text;
}

// A plain validator of the keywords below, written for this test.
bool Valid(const Json& root, const Json& schema, const Json& v) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref")) return Valid(root, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), v);
  if (schema.contains("nullable") && schema["nullable"] == true && v.is_null()) return true;
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    bool any = false;
    for (const Json& t : types) {
      any = any || (t == "object" && v.is_object()) || (t == "array" && v.is_array()) || (t == "string" && v.is_string()) ||
            (t == "number" && v.is_number()) || (t == "integer" && v.is_number_integer()) || (t == "boolean" && v.is_boolean()) ||
            (t == "null" && v.is_null());
    }
    if (!any) return false;
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    if (!schema.contains(key)) continue;
    bool any = false;
    for (const Json& s : schema[key]) any = any || Valid(root, s, v);
    if (!any) return false;
  }
  if (schema.contains("allOf")) {
    for (const Json& s : schema["allOf"]) {
      if (!Valid(root, s, v)) return false;
    }
  }
  if (schema.contains("enum") && std::find(schema["enum"].begin(), schema["enum"].end(), v) == schema["enum"].end()) return false;
  if (schema.contains("const") && schema["const"] != v) return false;
  if (v.is_object()) {
    const Json props = schema.value("properties", Json::object());
    for (const Json& r : schema.value("required", Json::array())) {
      if (!v.contains(r.get<std::string>())) return false;
    }
    for (const auto& [name, member] : v.items()) {
      if (props.contains(name)) {
        if (!Valid(root, props[name], member)) return false;
      } else if (schema.contains("additionalProperties") && !Valid(root, schema["additionalProperties"], member)) {
        return false;
      }
    }
  }
  if (v.is_array()) {
    const Json prefix = schema.value("prefixItems", Json::array());
    for (size_t i = 0; i < v.size(); ++i) {
      if (i < prefix.size() ? !Valid(root, prefix[i], v[i]) : schema.contains("items") && !Valid(root, schema["items"], v[i])) return false;
    }
    if (v.size() < schema.value("minItems", size_t{0}) || v.size() > schema.value("maxItems", size_t{1000000})) return false;
  }
  if (v.is_string()) {
    const std::string text = v;
    size_t n = 0;
    for (const char c : text) n += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    if (n < schema.value("minLength", size_t{0}) || n > schema.value("maxLength", size_t{1000000})) return false;
    if (schema.contains("pattern") && !std::regex_search(text, std::regex(schema["pattern"].get<std::string>()))) return false;
  }
  if (v.is_number()) {
    const double x = v;
    if (x < schema.value("minimum", -HUGE_VAL) || x > schema.value("maximum", HUGE_VAL)) return false;
    if (schema.contains("exclusiveMinimum") && x <= schema["exclusiveMinimum"].get<double>()) return false;
    if (schema.contains("exclusiveMaximum") && x >= schema["exclusiveMaximum"].get<double>()) return false;
  }
  return true;
}

std::string Refusal(const Json& schema) {
  try {
    Automaton(schema);
  } catch (const ApiError& e) {
    CHECK(e.status() == 400);
    return e.what();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

const char* const kSchemas[] = {
    R"({})",
    R"({"type":"object"})",
    R"({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}},"required":["a","b"],"additionalProperties":false})",
    R"({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"},"c":{"type":"null"}},"required":["b"]})",
    R"({"type":"object","properties":{"a":{"type":"boolean"},"ab":{"type":"integer"}},"additionalProperties":{"type":"number"}})",
    R"({"type":"object","properties":{"x":{"type":"integer"}},"required":["x","y"],"additionalProperties":true})",
    R"({"type":"array","items":{"type":"integer","minimum":-7,"maximum":112},"minItems":1,"maxItems":4})",
    R"({"type":"array","prefixItems":[{"type":"string"},{"type":"boolean"}],"items":{"type":"integer"},"maxItems":5})",
    R"({"type":"array","prefixItems":[{"type":"string"},{"type":"boolean"}],"items":false,"minItems":1})",
    R"({"type":"array","maxItems":0})",
    R"({"type":["string","null","integer"]})",
    R"({"type":"string","minLength":2,"maxLength":5})",
    R"({"type":"string","pattern":"^[a-c]{2}-\\d+(x|yz)?$"})",
    R"({"type":"string","pattern":"ab+"})",
    R"({"type":"string","pattern":"^\\w+@\\w+\\.com$"})",
    R"({"type":"string","format":"date"})",
    R"({"type":"string","format":"date-time"})",
    R"({"type":"string","format":"uuid"})",
    R"({"type":"string","format":"ipv4"})",
    R"({"type":"integer","minimum":0})",
    R"({"type":"integer","exclusiveMinimum":9,"maximum":1005})",
    R"({"type":"integer","maximum":-3})",
    R"({"type":"integer","minimum":-120,"exclusiveMaximum":-3})",
    R"({"type":"number","minimum":0,"maximum":1})",
    R"({"type":"number","exclusiveMinimum":0})",
    R"({"type":"number","minimum":-2.5,"exclusiveMaximum":13})",
    R"({"type":"number","maximum":0})",
    R"({"type":"number","exclusiveMaximum":0,"minimum":-3})",
    R"({"enum":["red","green",3,null,{"a":[1]}]})",
    R"({"const":{"k":"v \"q\" \\ \n"}})",
    R"({"anyOf":[{"type":"string"},{"type":"object","properties":{"n":{"type":"number"}},"required":["n"],"additionalProperties":false}]})",
    R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"boolean"}},"required":["b"]}]})",
    R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}},"$ref":"#/$defs/node"})",
    R"({"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"}}},"required":["children"],"additionalProperties":false})",
    R"({"type":"string","nullable":true})",
    R"({"type":"object","properties":{"a\"b\\c":{"type":"integer"},"ä":{"type":"boolean"}},"required":["a\"b\\c","ä"]})",
};

}  // namespace

TEST_CASE("Whatever the grammar of a schema allows, parses and is valid") {
  std::mt19937 rng(11);
  for (const std::string text : kSchemas) {
    INFO(text);
    const Json schema = Json::parse(text);
    GrammarAutomaton a = Automaton(schema);
    int n = 0;
    for (int i = 0; i < 60; ++i) {
      const std::string out = Generate(a, rng);
      if (out.empty()) continue;
      ++n;
      INFO(out);
      const Json value = Json::parse(out, nullptr, false);
      REQUIRE_FALSE(value.is_discarded());
      CHECK(Valid(schema, schema, value));
    }
    // Random characters hardly ever come upon a pattern without anchors.
    if (text.find("\"ab+\"") == std::string::npos) CHECK(n > 20);
  }
}

TEST_CASE("Valid texts are allowed, others are not") {
  struct Case {
    const char* schema;
    std::vector<const char*> yes, no;
  };
  const Case cases[] = {
      {kSchemas[2], {R"({"a":"x","b":1})", R"({ "a": "x", "b": -1 })", "{\n  \"a\": \"\",\n  \"b\": 0\n}"},
       {R"({"a":"x"})", R"({"b":1,"a":"x"})", R"({"a":"x","b":1,"c":2})", R"({"a":1,"b":1})", R"({"a":"x","b":01})"}},
      {kSchemas[3], {R"({"b":1})", R"({"a":"","b":1})", R"({"b":1,"c":null})", R"({"a":"","b":2,"c":null})"}, {"{}", R"({"a":""})", R"({,"b":1})"}},
      {kSchemas[4], {"{}", R"({"a":true})", R"({"b":1.5})", R"({"a":true,"ab":1,"abc":2,"q":3})"}, {R"({"a":1})", R"({"ab":1.5})", R"({"zz":"x"})", R"({"b":1,"a":1})"}},
      {kSchemas[6], {"[1]", "[-7, 112]", "[99,0,10,100]"}, {"[]", "[-8]", "[113]", "[1,2,3,4,5]", "[1.5]", "[007]"}},
      {kSchemas[7], {"[]", "[\"a\"]", "[\"a\",true,1,2,3]"}, {"[true]", "[\"a\",true,\"b\"]", "[\"a\",true,1,2,3,4]"}},
      {kSchemas[12], {"\"ab-1\"", "\"cc-123yz\""}, {"\"ab-\"", "\"abc-1\"", "\"ab-1xx\""}},
      {kSchemas[13], {"\"ab\"", "\"xxabbby\""}, {"\"a\"", "\"\""}},
      {kSchemas[15], {"\"2024-02-28\"", "\"1999-12-31\""}, {"\"2024-13-01\"", "\"2024-04-31\"", "\"24-01-01\""}},
      {kSchemas[19], {"0", "7", "123456789"}, {"-1", "1.5", "01", ""}},
      {kSchemas[20], {"10", "99", "1005"}, {"9", "1006", "0", "10000"}},
      {kSchemas[22], {"-120", "-4", "-99"}, {"-121", "-3", "0", "5"}},
      {kSchemas[23], {"0", "1", "0.5", "1.0", "0.999"}, {"1.1", "-0.5", "2"}},
      {kSchemas[24], {"0.1", "1", "12.5"}, {"0", "0.0", "-1"}},
      {kSchemas[25], {"-2", "-1.5", "12.9", "0", "-2.0"}, {"13", "-3", "13.0", "-2.6"}},
      {kSchemas[28], {"\"red\"", "3", "null", "{\"a\":[1]}"}, {"\"blue\"", "33"}},
      {kSchemas[32], {R"({"v":1,"next":{"v":2,"next":null}})"}, {R"({"v":1})", R"({"v":1,"next":1})"}},
      {kSchemas[34], {"null", "\"x\""}, {"1"}},
  };
  for (const Case& c : cases) {
    const Json schema = Json::parse(c.schema);
    INFO(c.schema);
    for (const char* text : c.yes) {
      INFO(text);
      CHECK(Accepts(schema, text));
    }
    for (const char* text : c.no) {
      INFO(text);
      CHECK_FALSE(Accepts(schema, text));
    }
  }
}

TEST_CASE("What cannot be said in a grammar is refused by name") {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"not":{"type":"string"}})", "'not'"},
      {R"({"type":"array","uniqueItems":true})", "'uniqueItems'"},
      {R"({"type":"object","patternProperties":{"a":{}}})", "'patternProperties'"},
      {R"({"type":"integer","multipleOf":3})", "'multipleOf'"},
      {R"({"type":"text"})", "\"text\""},
      {R"({"$ref":"http://127.0.0.1/schema.json"})", "within the schema"},
      {R"({"$ref":"#/nowhere"})", "nowhere"},
      {R"({"$ref":"#"})", "itself"},
      {R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})", ""},
      {R"({"type":"string","pattern":"(?=a)b"})", "look-around"},
      {R"({"type":"string","pattern":"(a)\\1"})", "\\1"},
      {R"({"type":"string","pattern":"["})", "]"},
      {R"({"type":"string","pattern":"^a|b$"})", "|"},
      {R"({"enum":[]})", "enum"},
      {R"({"type":"integer","minimum":5,"maximum":4})", "no integer"},
      {R"({"type":"array","minItems":3,"maxItems":2})", "minItems"},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})", "false"},
      {R"({"type":"object","required":["a"],"properties":{},"additionalProperties":false})", "'a'"},
      {R"({"properties":[1]})", "properties"},
      {R"({"allOf":[{"type":"string"},{"type":"integer"}]})", "type"},
  };
  for (const auto& [text, part] : cases) {
    INFO(text);
    const std::string message = Refusal(Json::parse(text));
    INFO(message);
    CHECK_FALSE(message.empty());
    CHECK(message.find(part) != std::string::npos);
  }
}

TEST_CASE("Large and deep schemas end quickly") {
  const auto start = std::chrono::steady_clock::now();
  Json deep = {{"type", "string"}};
  for (int i = 0; i < 30; ++i) deep = {{"type", "object"}, {"properties", {{"a", deep}}}, {"required", {"a"}}};
  CHECK(Refusal(deep).empty());
  Json wide = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 500; ++i) wide["properties"]["property" + std::to_string(i)] = {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", i}}}};
  CHECK(Refusal(wide).empty());
  Json many = {{"enum", Json::array()}};
  for (int i = 0; i < 5000; ++i) many["enum"].push_back("value " + std::to_string(i));
  CHECK(Refusal(many).empty());
  Refusal(Json{{"type", "string"}, {"pattern", std::string(3000, '(') + "a" + std::string(3000, ')')}});
  // allOf that doubles at every level.
  Json doubling = {{"type", "object"}};
  for (int i = 0; i < 20; ++i) doubling = {{"anyOf", Json::array({doubling, doubling})}};
  Refusal(Json{{"type", "array"}, {"items", {{"type", "string"}, {"maxLength", 1000000000}}}, {"maxItems", 1000000000}});
  // References deepen what one JSON text may nest.
  for (const char* keyword : {"items", "additionalProperties", "anyOf", "allOf"}) {
    for (const int levels : {100, 2000}) {
      Json chain = {{"$ref", "#/$defs/0"}, {"$defs", Json::object()}};
      for (int i = 0; i < levels; ++i) {
        const Json next = {{"$ref", "#/$defs/" + std::to_string(i + 1)}};
        const bool list = std::string(keyword).ends_with("Of");
        chain["$defs"][std::to_string(i)] = {{keyword, list ? Json::array({next}) : next}};
      }
      chain["$defs"][std::to_string(levels)] = {{"type", "string"}};
      INFO(keyword, " ", levels);
      CHECK(Refusal(chain).empty() == (levels == 100));
    }
  }
  // What stands beside many alternatives.
  Json choices = {{"type", "object"}, {"anyOf", Json::array()}};
  for (int i = 0; i < 5000; ++i) choices["anyOf"].push_back(Json::object());
  CHECK_FALSE(Refusal(choices).empty());
  CHECK(std::chrono::steady_clock::now() - start < testing::Patience(10));
}

TEST_CASE("Answers of the server match their schema, or end at the length") {
  const testing::TestServer server;
  const auto chat = [&](Json more) {
    Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "Tell me a story."}}})}, {"max_tokens", 300}, {"temperature", 1}};
    body.update(more);
    return server.Post("/v1/chat/completions", body);
  };
  int whole = 0;
  for (int i = 0; i < 3; ++i) {
    for (const int k : {2, 3, 6, 7, 11, 15, 17, 20, 28, 32}) {
      const Json schema = Json::parse(kSchemas[k]);
      const auto a = chat({{"seed", i}, {"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "x"}, {"strict", true}, {"schema", schema}}}}}});
      INFO(kSchemas[k]);
      INFO(a.body);
      REQUIRE(a.status == 200);
      const Json& c = a.json["choices"][0];
      if (c["finish_reason"] == "length") continue;
      ++whole;
      CHECK(c["finish_reason"] == "stop");
      const Json value = Json::parse(c["message"]["content"].get<std::string>(), nullptr, false);
      REQUIRE_FALSE(value.is_discarded());
      CHECK(Valid(schema, schema, value));
    }
  }
  CHECK(whole >= 15);
  const auto object = chat({{"response_format", {{"type", "json_object"}}}, {"temperature", 0}});
  REQUIRE(object.status == 200);
  CHECK(object.json["choices"][0]["message"]["content"].get<std::string>().starts_with("{"));
  const auto grammar = chat({{"grammar", "root ::= \"The answer is \" (\"yes\" | \"no\") \", and that is all.\""}});
  const std::string text = grammar.json["choices"][0]["message"]["content"];
  const bool yes_or_no = text == "The answer is yes, and that is all." || text == "The answer is no, and that is all.";
  CHECK(yes_or_no);
  CHECK(grammar.json["timings"]["forced_n"].get<int>() > 4);
  // The same text streamed.
  std::string streamed;
  Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "x"}}})}, {"temperature", 0}, {"grammar", "root ::= [0-9]{7}"}};
  for (const Json& e : server.Stream("/v1/chat/completions", body)) streamed += e["choices"][0]["delta"].value("content", "");
  CHECK(streamed.size() == 7);
  CHECK(streamed.find_first_not_of("0123456789") == std::string::npos);
  for (const Json& bad : {Json{{"grammar", "root ::= root \"a\""}}, Json{{"response_format", {{"type", "xml"}}}},
                          Json{{"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"not", {}}}}}}}}},
                          Json{{"json_schema", {{"type", "object"}}}, {"grammar", "root ::= \"a\""}}}) {
    const auto a = chat(bad);
    INFO(a.body);
    CHECK(a.status == 400);
  }
}

}  // namespace lutra
