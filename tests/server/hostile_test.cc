// Hostile bodies: no request ends the process, hangs it, or is answered with a 5xx. The requests come from the table of fields.
#include <chrono>
#include <fstream>
#include <random>

#include "server/params.h"
#include "tests/server/server_util.h"

namespace lutra {
namespace {

using testing::Json;
using testing::TestServer;

const TestServer& Server() {
  static const TestServer server;
  return server;
}

Json Base(unsigned endpoint) {
  if (endpoint == server::kChat)
    return {{"messages", Json::array({{{"role", "user"}, {"content", "hi"}}})}, {"max_tokens", 2}};
  if (endpoint == server::kCompletions) return {{"prompt", "hi"}, {"max_tokens", 2}};
  if (endpoint == server::kEmbeddings) return {{"input", "hi"}};
  if (endpoint == server::kTokenize) return {{"content", "hi"}};
  if (endpoint == server::kDetokenize) return {{"tokens", {1, 2}}};
  return {{"messages", Json::array({{{"role", "user"}, {"content", "hi"}}})}};
}

constexpr std::pair<unsigned, const char*> kPaths[] = {
    {server::kChat, "/v1/chat/completions"}, {server::kCompletions, "/v1/completions"},
    {server::kEmbeddings, "/v1/embeddings"}, {server::kTokenize, "/tokenize"},
    {server::kDetokenize, "/detokenize"},    {server::kApplyTemplate, "/apply-template"}};

// 200 or a 4xx that names the field where it refuses a value.
void Try(const char* path, const Json& body, const std::string& field) {
  const auto start = std::chrono::steady_clock::now();
  const auto a = Server().Post(path, body);
  INFO(path, " ", server::Dump(body).substr(0, 300), " -> ", a.body.substr(0, 300));
  const bool good = a.status == 200 || a.status == 400 || a.status == 404;
  CHECK(good);
  if (a.status == 400) {
    REQUIRE(a.json.is_object());
    CHECK(a.json["error"]["message"].get<std::string>().size() > 5);
    if (!field.empty())
      CHECK(a.json["error"]["message"].get<std::string>().find(field.substr(0, field.find('.'))) !=
            std::string::npos);
  }
  CHECK(std::chrono::steady_clock::now() - start < testing::Patience(20));
}

}  // namespace

TEST_CASE("Every field with every kind of wrong value") {
  const Json values[] = {nullptr,
                         true,
                         -1,
                         0,
                         1,
                         1.5,
                         -2147483649,
                         2147483648,
                         9223372036854775807,
                         18446744073709551615u,
                         1e39,
                         -1e308,
                         "",
                         "x",
                         "nan",
                         Json::array(),
                         Json::array({1, "x", nullptr}),
                         Json::object(),
                         Json{{"a", Json::array()}},
                         Json::array({Json::array({1, 2})})};
  size_t n = 0, refused = 0;
  for (const auto& [bit, path] : kPaths) {
    std::vector<std::string> names;
    for (const server::FieldRow& row : server::FieldTable()) {
      if ((row.endpoints & bit) != 0) names.push_back(row.name);
    }
    if ((bit & (server::kChat | server::kCompletions)) != 0) {
      for (const SamplingParamRow& row : SamplingParamTable()) names.push_back(row.name);
    }
    for (const std::string& name : names) {
      for (const Json& value : values) {
        Json body = Base(bit);
        body[name] = value;
        if (name == "max_tokens" || name == "ignore_eos") body["stop"] = "e";
        Try(path, body, name == "model" || name == "stream" ? "" : name);
        ++n;
      }
    }
  }
  CHECK(n > 2000);
  // Ranges at their edges, from the table itself.
  for (const server::FieldRow& row : server::FieldTable()) {
    if (!std::holds_alternative<int64_t server::Params::*>(row.field)) continue;
    for (const auto& [bit, path] : kPaths) {
      if ((row.endpoints & bit) == 0) continue;
      for (const double value : {row.min - 1, row.max + 1}) {
        Json body = Base(bit);
        body[row.name] = static_cast<int64_t>(value);
        const auto a = Server().Post(path, body);
        INFO(path, " ", row.name, " ", value, " ", a.body);
        CHECK(a.status == 400);
        CHECK(a.json["error"]["param"] == row.name);
        ++refused;
      }
    }
  }
  for (const SamplingParamRow& row : SamplingParamTable()) {
    const std::string type = row.TypeName();
    if ((type != "integer" && type != "number") || std::string(row.name) == "seed") continue;
    const server::SamplingRange range = server::RangeOf(row);
    for (const double value : {range.min - 1, range.max + 1}) {
      Json body = Base(server::kChat);
      body[row.name] = value;
      const auto a = Server().Post("/v1/chat/completions", body);
      INFO(row.name, " ", value, " ", a.body);
      CHECK(a.status == 400);
      CHECK(a.json["error"]["param"] == row.name);
      ++refused;
    }
  }
  CHECK(refused > 60);
  CHECK(Server().Get("/health").status == 200);
}

std::string ManyMembers(int n) {
  std::string body = "{\"a\":1";
  for (int i = 0; i < n; ++i) body += ",\"k" + std::to_string(i) + "\":1";
  return body + "}";
}

TEST_CASE("Bodies that are not what they seem") {
  const auto start = std::chrono::steady_clock::now();
  const std::string raw[] = {std::string(200000, '['),
                             std::string(200000, '{'),
                             "{\"a\":" + std::string(100000, '['),
                             "\xFF\xFE",
                             "{\"messages\":[{\"role\":\"user\",\"content\":\"\xFF\"}]}",
                             "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
                             "{\"seed\":1e400}",
                             "nul",
                             "\"x\"",
                             "123",
                             std::string(1, '\0'),
                             "{\"a\":1}{\"b\":2}",
                             "{'a':1}",
                             "{\"messages\":[],\"messages\":1}",
                             ManyMembers(100000),
                             std::string("{\"model\":\"a\0b\"}", 15)};
  for (const std::string& body : raw) {
    const auto a = Server().Post("/v1/chat/completions", body);
    INFO(body.substr(0, 80), " -> ", a.body.substr(0, 200));
    const bool client = a.status == 400 || a.status == 404;
    CHECK(client);
    REQUIRE(a.json.is_object());
    CHECK(a.json["error"]["type"] == "invalid_request_error");
  }
  // Deep and large values in known fields.
  Json deep = Json::object();
  for (int i = 0; i < 55; ++i) deep = {{"properties", {{"a", deep}}}};
  Json chat = Base(server::kChat);
  const auto with = [&](const char* name, const Json& value) {
    Json body = chat;
    body[name] = value;
    Try("/v1/chat/completions", body, "");
  };
  with("json_schema", deep);
  with("grammar", "root ::= " + std::string(60000, '(') + "\"a\"" + std::string(60000, ')'));
  with("grammar", std::string(300000, 'a'));
  with("json_schema", Json{{"type", "string"},
                           {"pattern", std::string(60000, '(') + "a" + std::string(60000, ')')}});
  with("json_schema", Json{{"type", "string"}, {"pattern", "(((a*)*)*)*b"}});
  with("json_schema", Json{{"$ref", "http://127.0.0.1:1/"}});
  Json stops = Json::array();
  for (int i = 0; i < 100000; ++i) stops.push_back("s");
  with("stop", stops);
  with("stop", std::string(1 << 20, 's'));
  Json bias = Json::object();
  for (int i = 0; i < 5000; ++i) bias[std::to_string(i)] = 1;
  with("logit_bias", bias);
  with("tools", Json::array({Json::array(), 1, nullptr}));
  Json tools = Json::array();
  for (int i = 0; i < 10000; ++i)
    tools.push_back({{"type", "function"}, {"function", {{"name", "f" + std::to_string(i)}}}});
  with("tools", tools);
  with("chat_template_kwargs",
       Json{{"messages", 1}, {"add_generation_prompt", Json::array({1})}, {"bos_token", 7}});
  with("messages",
       Json::array(
           {{{"role", "assistant"},
             {"tool_calls", Json::array({{{"function", {{"name", "a"}, {"arguments", "{"}}}}})}}}));
  with("messages", Json::array({{{"role", "tool"}, {"content", nullptr}}}));
  with("messages", Json::array({{{"role", "user"}, {"content", std::string(2 << 20, 'a')}}}));
  with("chat_template", "{% for i in range(1000000000) %}{% endfor %}");
  with("n", 16);
  CHECK(std::chrono::steady_clock::now() - start < testing::Patience(60));
  CHECK(Server().Get("/health").status == 200);
}

TEST_CASE("Random damage to good requests") {
  std::mt19937 rng(17);
  const std::string good =
      R"({"model":"demo","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_tokens":2,"temperature":0.5,"top_p":0.9,"stop":["x","y"],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"b":{"type":"integer","minimum":1}}}}},"logit_bias":{"5":1},"seed":3})";
  for (int i = 0; i < 300; ++i) {
    std::string body = good;
    const size_t n = 1 + rng() % 3;
    for (size_t k = 0; k < n; ++k) {
      const size_t at = rng() % body.size();
      switch (rng() % 4) {
        case 0:
          body[at] = static_cast<char>(rng());
          break;
        case 1:
          body.erase(at, 1 + rng() % 20);
          break;
        case 2:
          body.insert(at, body.substr(rng() % body.size(), rng() % 30));
          break;
        default:
          body[at] = "{}[]\",:0-"[rng() % 9];
          break;
      }
      if (body.empty()) body = "{";
    }
    const auto a = Server().Post("/v1/chat/completions", body);
    INFO(body, " -> ", a.body.substr(0, 200));
    const bool good_status = a.status == 200 || (a.status >= 400 && a.status < 500);
    CHECK(good_status);
  }
  CHECK(Server().Get("/health").status == 200);
}

TEST_CASE("docs/server.md holds the table of fields as it is") {
  const std::string path = std::string(LUTRA_SOURCE_DIR) + "/docs/server.md";
  const std::string text = testing::ReadText(path);
  const std::string begin = "<!-- fields: generated -->\n", end = "<!-- end of fields -->";
  const size_t a = text.find(begin), b = text.find(end);
  REQUIRE(a != std::string::npos);
  REQUIRE(b != std::string::npos);
  const std::string table = text.substr(a + begin.size(), b - a - begin.size());
  if (table != server::FieldsMarkdown() && std::getenv("LUTRA_UPDATE_DOCS") != nullptr) {
    std::ofstream(path, std::ios::binary)
        << text.substr(0, a) + begin + server::FieldsMarkdown() + text.substr(b);
    FAIL("docs/server.md was written anew");
  }
  const bool same = table == server::FieldsMarkdown();
  CHECK_MESSAGE(same, "run test_server with LUTRA_UPDATE_DOCS=1 to write the table anew");
}

}  // namespace lutra
