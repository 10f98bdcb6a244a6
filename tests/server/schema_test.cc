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
      if (a.Step(s, static_cast<uint8_t>(b)) != GrammarAutomaton::kDead)
        next.push_back(static_cast<uint8_t>(b));
    }
    REQUIRE(!next.empty());
    uint8_t byte = next[rng() % next.size()];
    // Closing characters are preferred when it gets long, or free values would never end.
    if (text.size() > 60) {
      for (const char c : std::string("}]\"")) {
        if (std::find(next.begin(), next.end(), static_cast<uint8_t>(c)) != next.end())
          byte = static_cast<uint8_t>(c);
      }
    }
    text += static_cast<char>(byte);
    s = a.Step(s, byte);
    if (text.size() > 20000) return "";
  }
  return text;
}

// A code point an element: patterns are over characters.
std::wstring Wide(const std::string& text) {
  std::wstring out;
  for (const char c : text) {
    const uint8_t b = static_cast<uint8_t>(c);
    if ((b & 0xC0) != 0x80)
      out += static_cast<wchar_t>(b < 0x80   ? b
                                  : b < 0xE0 ? b & 0x1F
                                  : b < 0xF0 ? b & 0x0F
                                             : b & 0x07);
    else
      out.back() = static_cast<wchar_t>(out.back() << 6 | (b & 0x3F));
  }
  return out;
}

// A plain validator of the keywords below, written for this test.
bool Valid(const Json& root, const Json& schema, const Json& v) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref"))
    return Valid(root, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), v);
  if (schema.contains("nullable") && schema["nullable"] == true && v.is_null()) return true;
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    bool any = false;
    for (const Json& t : types) {
      any = any || (t == "object" && v.is_object()) || (t == "array" && v.is_array()) ||
            (t == "string" && v.is_string()) || (t == "number" && v.is_number()) ||
            (t == "integer" && v.is_number_integer()) || (t == "boolean" && v.is_boolean()) ||
            (t == "null" && v.is_null());
    }
    if (!any) return false;
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    if (!schema.contains(key)) continue;
    int n = 0;
    for (const Json& s : schema[key]) n += Valid(root, s, v);
    if (n == 0 || (n > 1 && std::string(key) == "oneOf")) return false;
  }
  if (schema.contains("allOf")) {
    for (const Json& s : schema["allOf"]) {
      if (!Valid(root, s, v)) return false;
    }
  }
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), v) == schema["enum"].end())
    return false;
  if (schema.contains("const") && schema["const"] != v) return false;
  if (v.is_object()) {
    const Json props = schema.value("properties", Json::object());
    for (const Json& r : schema.value("required", Json::array())) {
      if (!v.contains(r.get<std::string>())) return false;
    }
    for (const auto& [name, member] : v.items()) {
      if (props.contains(name)) {
        if (!Valid(root, props[name], member)) return false;
      } else if (schema.contains("additionalProperties") &&
                 !Valid(root, schema["additionalProperties"], member)) {
        return false;
      }
    }
  }
  if (v.is_array()) {
    const Json prefix = schema.value("prefixItems", Json::array());
    for (size_t i = 0; i < v.size(); ++i) {
      if (i < prefix.size() ? !Valid(root, prefix[i], v[i])
                            : schema.contains("items") && !Valid(root, schema["items"], v[i]))
        return false;
    }
    if (v.size() < schema.value("minItems", size_t{0}) ||
        v.size() > schema.value("maxItems", size_t{1000000}))
      return false;
  }
  if (v.is_string()) {
    const std::string text = v;
    size_t n = 0;
    for (const char c : text) n += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    if (n < schema.value("minLength", size_t{0}) || n > schema.value("maxLength", size_t{1000000}))
      return false;
    if (schema.contains("pattern") &&
        !std::regex_search(Wide(text), std::wregex(Wide(schema["pattern"]))))
      return false;
  }
  if (v.is_number()) {
    const double x = v;
    if (x < schema.value("minimum", -HUGE_VAL) || x > schema.value("maximum", HUGE_VAL))
      return false;
    if (schema.contains("exclusiveMinimum") && x <= schema["exclusiveMinimum"].get<double>())
      return false;
    if (schema.contains("exclusiveMaximum") && x >= schema["exclusiveMaximum"].get<double>())
      return false;
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
    R"({"type":"string","pattern":"^[a-z]+(-[a-z]+)*$","minLength":4,"maxLength":9})",
    R"({"type":"string","pattern":"b","maxLength":3})",
    R"({"type":"string","pattern":"^(\\w|\\n|é)*$","minLength":2})",
    R"({"type":"string","pattern":"^.$"})",
    R"({"type":"string","pattern":"^a|b$","maxLength":2})",
    R"({"type":"string","format":"ipv4","maxLength":8})",
    R"({"type":"string","format":"date","pattern":"^19"})",
    R"({"type":"string","format":"email","maxLength":12})",
    R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"dog"},"age":{"type":"integer"}},"required":["kind"],"additionalProperties":false},{"type":"object","properties":{"kind":{"enum":["cat","cow"]},"name":{"type":"string"}},"required":["kind","name"],"additionalProperties":false}]})",
    R"({"oneOf":[{"type":"string"},{"type":"integer"},{"type":"null"}]})",
    R"({"oneOf":[{"enum":[1,2,3]},{"enum":[3,4]}]})",
    R"({"oneOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"type":"object","properties":{"b":{"type":"integer"}},"required":["b"]}]})",
    R"({"type":"object","properties":{"id":{"type":"integer"}},"required":["id"],"oneOf":[{"properties":{"t":{"const":1}},"required":["t"]},{"properties":{"t":{"const":2}},"required":["t"]}]})",
    R"({"oneOf":[{"type":"integer","maximum":3},{"type":"integer","minimum":4,"maximum":9}]})",
    R"({"$defs":{"s":{"type":"string"}},"$ref":"#/$defs/s","maxLength":3})",
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
    if (text.find("\"ab+\"") == std::string::npos && text.find("\"b\"") == std::string::npos)
      CHECK(n > 20);
  }
}

TEST_CASE("Valid texts are allowed, others are not") {
  struct Case {
    const char* schema;
    std::vector<const char*> yes, no;
  };
  const Case cases[] = {
      {kSchemas[2],
       {R"({"a":"x","b":1})", R"({ "a": "x", "b": -1 })", "{\n  \"a\": \"\",\n  \"b\": 0\n}"},
       {R"({"a":"x"})", R"({"b":1,"a":"x"})", R"({"a":"x","b":1,"c":2})", R"({"a":1,"b":1})",
        R"({"a":"x","b":01})"}},
      {kSchemas[3],
       {R"({"b":1})", R"({"a":"","b":1})", R"({"b":1,"c":null})", R"({"a":"","b":2,"c":null})"},
       {"{}", R"({"a":""})", R"({,"b":1})"}},
      {kSchemas[4],
       {"{}", R"({"a":true})", R"({"b":1.5})", R"({"a":true,"ab":1,"abc":2,"q":3})"},
       {R"({"a":1})", R"({"ab":1.5})", R"({"zz":"x"})", R"({"b":1,"a":1})"}},
      {kSchemas[6],
       {"[1]", "[-7, 112]", "[99,0,10,100]"},
       {"[]", "[-8]", "[113]", "[1,2,3,4,5]", "[1.5]", "[007]"}},
      {kSchemas[7],
       {"[]", "[\"a\"]", "[\"a\",true,1,2,3]"},
       {"[true]", "[\"a\",true,\"b\"]", "[\"a\",true,1,2,3,4]"}},
      {kSchemas[12], {"\"ab-1\"", "\"cc-123yz\""}, {"\"ab-\"", "\"abc-1\"", "\"ab-1xx\""}},
      {kSchemas[13], {"\"ab\"", "\"xxabbby\""}, {"\"a\"", "\"\""}},
      {kSchemas[15],
       {"\"2024-02-28\"", "\"1999-12-31\""},
       {"\"2024-13-01\"", "\"2024-04-31\"", "\"24-01-01\""}},
      {kSchemas[19], {"0", "7", "123456789"}, {"-1", "1.5", "01", ""}},
      {kSchemas[20], {"10", "99", "1005"}, {"9", "1006", "0", "10000"}},
      {kSchemas[22], {"-120", "-4", "-99"}, {"-121", "-3", "0", "5"}},
      {kSchemas[23], {"0", "1", "0.5", "1.0", "0.999"}, {"1.1", "-0.5", "2"}},
      {kSchemas[24], {"0.1", "1", "12.5"}, {"0", "0.0", "-1"}},
      {kSchemas[25], {"-2", "-1.5", "12.9", "0", "-2.0"}, {"13", "-3", "13.0", "-2.6"}},
      {kSchemas[28], {"\"red\"", "3", "null", "{\"a\":[1]}"}, {"\"blue\"", "33"}},
      {kSchemas[32],
       {R"({"v":1,"next":{"v":2,"next":null}})"},
       {R"({"v":1})", R"({"v":1,"next":1})"}},
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

TEST_CASE("Patterns hold together with lengths and formats") {
  struct Case {
    const char* schema;
    std::vector<const char*> yes, no;
  };
  const Case cases[] = {
      {R"({"type":"string","pattern":"^[a-z]+(-[a-z]+)*$","minLength":4,"maxLength":9})",
       {"abcd", "a-b-c", "abcde-fgh"},
       {"abc", "a--b", "abcdefghij", "ab-", "ABCD"}},
      {R"({"type":"string","pattern":"b","maxLength":3})",
       {"b", "abc", "\\nb", "é\\\"b"},
       {"a", "abcd", "xxxb", ""}},
      {R"({"type":"string","pattern":"^.$"})",
       {"a", "é", "\\\"", "\\\\"},
       {"\\n", "\\r", "ab", ""}},
      {R"({"type":"string","pattern":"^a|b$"})", {"a", "axx", "b", "xxb"}, {"xa", "bx", ""}},
      {R"({"type":"string","pattern":"^a|b$","maxLength":2})",
       {"a", "ax", "xb"},
       {"axx", "xxb", "bx"}},
      {R"({"type":"string","pattern":"^(a{2}){2,3}$","minLength":5})",
       {"aaaaaa"},
       {"aaaa", "aaaaa", "aaaaaaaa"}},
      {R"({"type":"string","pattern":"","minLength":1,"maxLength":1})", {"x", "ß"}, {"", "xy"}},
      {R"({"type":"string","pattern":"^x*$","minLength":3})",
       {"xxx", "xxxxxxxxxx"},
       {"xx", "xxxy"}},
      {R"({"type":"string","format":"date","pattern":"^19"})", {"1999-12-31"}, {"2024-01-01"}},
      {R"({"type":"string","format":"ipv4","maxLength":8})",
       {"10.0.0.1", "1.2.3.4"},
       {"10.0.0.11"}},
      {R"({"type":"string","format":"duration"})",
       {"P1D", "PT1H30M", "P1Y2M3DT4H", "P3W"},
       {"P", "PT", "P1H", "1D", "P1YT"}},
      {R"({"type":"string","format":"hostname"})",
       {"localhost", "a-b.example.org"},
       {"-a", "a-", "a..b", ""}},
      {R"({"type":"string","format":"ipv6"})",
       {"::1", "2001:db8:0:0:0:0:0:1", "fe80::1"},
       {":1", "1:2:3", "2001::12345"}},
      {R"({"type":"string","format":"uri"})",
       {"https://example.org", "http://a.b:80/c/d?x=1"},
       {"example.org", "http://", "http:// x"}},
  };
  for (const Case& c : cases) {
    INFO(c.schema);
    for (const char* text : c.yes) {
      INFO(text);
      CHECK(Accepts(Json::parse(c.schema), "\"" + std::string(text) + "\""));
    }
    for (const char* text : c.no) {
      INFO(text);
      CHECK_FALSE(Accepts(Json::parse(c.schema), "\"" + std::string(text) + "\""));
    }
  }
  const std::pair<const char*, const char*> refused[] = {
      {R"({"type":"string","pattern":"^[a-z]{3}$","minLength":4})", "no text has the pattern"},
      {R"({"type":"string","format":"uuid","maxLength":35})", "no text has the pattern"},
      {R"({"type":"string","pattern":"^(a|b)*a(a|b){12}$","maxLength":2000})",
       "8192 states; lower maxLength"},
      {R"({"type":"string","pattern":"^((a{1,100}){1,100}){1,100}$","maxLength":10})",
       "20000 places"},
      {R"({"type":"string","pattern":"^a{1,5000}$"})", "4096"},
      {R"({"type":"string","pattern":"(^a)b","maxLength":2})", "^ is taken"},
      {R"({"type":"string","pattern":"^[\u0001]$"})", "nothing that a JSON string can"},
  };
  for (const auto& [text, part] : refused) {
    INFO(text);
    const auto start = std::chrono::steady_clock::now();
    const std::string message = Refusal(Json::parse(text));
    INFO(message);
    CHECK(message.find(part) != std::string::npos);
    CHECK(message.find("at the schema's root") != std::string::npos);
    CHECK(std::chrono::steady_clock::now() - start < testing::Patience(2));
  }
}

TEST_CASE(
    "oneOf is exact where its branches can be told apart; elsewhere it is anyOf and said so, or "
    "refused if strict") {
  const char* const apart[] = {
      R"([{"type":"string"},{"type":"number"},{"type":"boolean"},{"type":"null"},{"type":"array"},{"type":"object"}])",
      R"([{"const":"a"},{"type":"string","minLength":2}])",
      R"([{"type":"number","maximum":1},{"type":"number","exclusiveMinimum":1}])",
      R"([{"type":"array","maxItems":1},{"type":"array","minItems":2}])",
      R"([{"type":"array","items":{"type":"string"},"minItems":1},{"type":"array","items":{"type":"integer"},"minItems":1}])",
      R"([{"type":"object","properties":{"k":{"const":1}},"required":["k"]},{"type":"object","properties":{"k":{"const":2}},"required":["k"]}])",
      R"([{"type":"object","properties":{"k":{"const":1}},"required":["k"]},{"type":"object","properties":{"k":{"const":2}}}])",
      R"([{"type":"object","properties":{"a":{}},"required":["a"]},{"type":"object","properties":{"b":{}},"required":["b"]}])",
      R"([{"type":"object","properties":{"a":{"type":"object","properties":{"k":{"enum":["x"]}},"required":["k"]}},"required":["a"]},{"type":"object","properties":{"a":{"type":"object","properties":{"k":{"enum":["y"]}},"required":["k"]}},"required":["a"]}])",
      R"([{"anyOf":[{"type":"string"},{"type":"null"}]},{"type":"integer"}])",
      R"([{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}])",
  };
  const Json defs = Json::parse(
      R"({"a":{"type":"object","properties":{"k":{"const":"a"}},"required":["k"]},"b":{"type":"object","properties":{"k":{"const":"b"},"more":{"$ref":"#/$defs/a"}},"required":["k"]}})");
  for (const std::string text : apart) {
    INFO(text);
    std::vector<std::string> relaxed;
    CHECK_NOTHROW(server::SchemaGrammar({{"oneOf", Json::parse(text)}, {"$defs", defs}}, "f",
                                        {true, &relaxed}));
    CHECK(relaxed.empty());
  }
  const char* const together[] = {
      R"([{"type":"integer"},{"type":"number"}])",
      R"([{"type":"string"},{"minimum":3}])",
      R"([{"type":"string","maxLength":3},{"type":"string","minLength":3}])",
      R"([{"type":"object","properties":{"a":{"type":"integer"}}},{"type":"object","properties":{"b":{"type":"integer"}}}])",
      R"([{"type":"object","properties":{"k":{"const":1}}},{"type":"object","properties":{"k":{"const":2}}}])",
      R"([{"type":"object","properties":{"a":{}},"additionalProperties":true},{"type":"object","properties":{"b":{}},"required":["b"]}])",
      R"([{"type":"object","properties":{"a":{}},"anyOf":[{"properties":{"b":{}},"required":["b"]}]},{"type":"object","properties":{"b":{}},"required":["b"]}])",
  };
  for (const std::string text : together) {
    INFO(text);
    const Json schema = {{"type", "object"},
                         {"properties", {{"p", {{"oneOf", Json::parse(text)}}}}}};
    std::vector<std::string> relaxed;
    CHECK_NOTHROW(server::SchemaGrammar(schema, "f", {false, &relaxed}));
    CHECK(relaxed == std::vector<std::string>{"/properties/p/oneOf"});
    try {
      server::SchemaGrammar(schema, "f", {true, nullptr});
      FAIL("it was taken");
    } catch (const ApiError& e) {
      CHECK(std::string(e.what()).find("at /properties/p/oneOf: a value may match both branch 0 "
                                       "and branch 1; give every branch") != std::string::npos);
    }
  }
  // Listed values: those of one branch only.
  const Json listed = Json::parse(R"({"oneOf":[{"enum":[1,2,3]},{"enum":[3,4]},{"const":2}]})");
  for (const char* text : {"1", "4"}) CHECK(Accepts(listed, text));
  for (const char* text : {"2", "3"}) CHECK_FALSE(Accepts(listed, text));
  CHECK(
      Refusal(Json::parse(R"({"oneOf":[{"const":1},{"enum":[1]}]})")).find("exactly one branch") !=
      std::string::npos);
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
      {R"({"type":"string","pattern":"(a|^b)c"})", "^"},
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
  for (int i = 0; i < 30; ++i)
    deep = {{"type", "object"}, {"properties", {{"a", deep}}}, {"required", {"a"}}};
  CHECK(Refusal(deep).empty());
  Json wide = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 500; ++i)
    wide["properties"]["property" + std::to_string(i)] = {
        {"type", "array"}, {"items", {{"type", "integer"}, {"minimum", i}}}};
  CHECK(Refusal(wide).empty());
  Json many = {{"enum", Json::array()}};
  for (int i = 0; i < 5000; ++i) many["enum"].push_back("value " + std::to_string(i));
  CHECK(Refusal(many).empty());
  Refusal(
      Json{{"type", "string"}, {"pattern", std::string(3000, '(') + "a" + std::string(3000, ')')}});
  // allOf that doubles at every level.
  Json doubling = {{"type", "object"}};
  for (int i = 0; i < 20; ++i) doubling = {{"anyOf", Json::array({doubling, doubling})}};
  Refusal(Json{{"type", "array"},
               {"items", {{"type", "string"}, {"maxLength", 1000000000}}},
               {"maxItems", 1000000000}});
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
  // Branches that are hard to tell apart.
  Json values = {{"oneOf", Json::array()}}, lists = values, objects = values;
  for (int i = 0; i < 10000; ++i) values["oneOf"].push_back({{"const", i}});
  CHECK(Refusal(values).empty());
  Json names = Json::array(), properties = Json::object();
  for (int i = 0; i < 300; ++i) {
    names.push_back("n" + std::to_string(i));
    properties[names.back().get<std::string>()] = {{"type", "integer"}};
  }
  for (int i = 0; i < 60; ++i) {
    lists["oneOf"].push_back({{"enum", names}, {"minLength", 1}});
    objects["oneOf"].push_back(
        {{"type", "object"}, {"properties", properties}, {"required", names}});
  }
  Refusal(lists);
  Refusal(objects);
  CHECK(std::chrono::steady_clock::now() - start < testing::Patience(10));
}

TEST_CASE("Answers of the server match their schema, or end at the length") {
  const testing::TestServer server;
  const auto chat = [&](Json more) {
    Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "Tell me a story."}}})},
                 {"max_tokens", 300},
                 {"temperature", 1}};
    body.update(more);
    return server.Post("/v1/chat/completions", body);
  };
  int whole = 0;
  for (int i = 0; i < 3; ++i) {
    for (const int k : {2, 3, 6, 7, 11, 15, 17, 20, 28, 32}) {
      const Json schema = Json::parse(kSchemas[k]);
      const auto a =
          chat({{"seed", i},
                {"response_format",
                 {{"type", "json_schema"},
                  {"json_schema", {{"name", "x"}, {"strict", true}, {"schema", schema}}}}}});
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
  const auto grammar =
      chat({{"grammar", "root ::= \"The answer is \" (\"yes\" | \"no\") \", and that is all.\""}});
  const std::string text = grammar.json["choices"][0]["message"]["content"];
  const bool yes_or_no =
      text == "The answer is yes, and that is all." || text == "The answer is no, and that is all.";
  CHECK(yes_or_no);
  CHECK(grammar.json["timings"]["forced_n"].get<int>() > 4);
  const Json overlapping = Json::parse(R"({"oneOf":[{"type":"integer"},{"type":"number"}]})");
  const auto relaxed = chat({{"json_schema", overlapping}});
  CHECK(relaxed.status == 200);
  CHECK(relaxed.header("x-relaxed-schema") == "/oneOf");
  CHECK(chat({{"response_format",
               {{"type", "json_schema"},
                {"json_schema", {{"strict", true}, {"schema", overlapping}}}}}})
            .status == 400);
  // The same text streamed.
  std::string streamed;
  Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "x"}}})},
               {"temperature", 0},
               {"grammar", "root ::= [0-9]{7}"}};
  for (const Json& e : server.Stream("/v1/chat/completions", body))
    streamed += e["choices"][0]["delta"].value("content", "");
  CHECK(streamed.size() == 7);
  CHECK(streamed.find_first_not_of("0123456789") == std::string::npos);
  for (const Json& bad :
       {Json{{"grammar", "root ::= root \"a\""}}, Json{{"response_format", {{"type", "xml"}}}},
        Json{{"response_format",
              {{"type", "json_schema"}, {"json_schema", {{"schema", {{"not", {}}}}}}}}},
        Json{{"json_schema", {{"type", "object"}}}, {"grammar", "root ::= \"a\""}}}) {
    const auto a = chat(bad);
    INFO(a.body);
    CHECK(a.status == 400);
  }
}

}  // namespace lutra
