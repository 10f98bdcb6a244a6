// The layer over the engine: finding the template, adjusting messages, BOS, thoughts.
#include "models/chat/chat_template.h"

#include "kernels/base/log.h"
#include "tests/gguf_builder.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

using Json = nlohmann::ordered_json;
using testing::GgufBuilder;

// A template of tests/data/templates.
ChatTemplate Load(const std::string& name) {
  const std::string path = std::string(LUTRA_TEST_DATA) + "/templates/" + name + ".json";
  const Json file = Json::parse(testing::ReadText(path));
  return ChatTemplate(file["template"].get<std::string>(), "<s>", "</s>");
}

ChatRequest Request(const std::string& messages, bool with_tools = false) {
  ChatRequest request;
  request.messages = Json::parse(messages);
  if (with_tools) {
    request.tools = Json::parse(
        R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object",)"
        R"("properties":{"x":{"type":"integer"}}}}}])");
  }
  std::tm now = {};
  now.tm_year = 126;
  now.tm_mon = 6;
  now.tm_mday = 26;
  request.now = now;
  return request;
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string ErrorOf(const ChatTemplate& t, const ChatRequest& request) {
  try {
    return "rendered: " + t.Apply(request);
  } catch (const Error& e) {
    return e.what();
  }
}

// A file and its bytes, which must outlive it.
struct File {
  explicit File(GgufBuilder builder) : bytes(builder.Build()) {}
  operator const GgufFile&() const { return file; }
  const std::vector<uint8_t> bytes;
  const GgufFile file = GgufFile::FromBytes(bytes, "test.gguf");
};

std::string g_log;
void KeepLog(LogLevel, const std::string& line) { g_log += line + "\n"; }

// Collects what is logged while it lives.
struct LogCapture {
  LogCapture() {
    g_log.clear();
    SetLogSink(KeepLog);
  }
  ~LogCapture() {
    SetLogSink([](LogLevel, const std::string&) {});
  }
};

TEST_CASE("traits are found by rendering") {
  struct Row {
    const char* name;
    bool system_role;
    ContentForm content;
    bool tool_calls;
    ArgumentForm arguments;
    bool null_content;
  };
  const Row rows[] = {
      {"chatml_like", true, ContentForm::kText, false, ArgumentForm::kUnknown, false},
      {"llama2_like", true, ContentForm::kText, false, ArgumentForm::kUnknown, false},
      {"llama3_like", true, ContentForm::kText, true, ArgumentForm::kObject, false},
      {"mistral_like", true, ContentForm::kText, true, ArgumentForm::kObject, false},
      {"qwen3_like", true, ContentForm::kText, true, ArgumentForm::kObject, false},
      {"coder_like", true, ContentForm::kAny, true, ArgumentForm::kObject, false},
      {"deepseek_like", true, ContentForm::kText, true, ArgumentForm::kText, true},
      {"gemma_like", false, ContentForm::kText, false, ArgumentForm::kUnknown, false},
      {"smol_like", true, ContentForm::kText, false, ArgumentForm::kUnknown, false},
  };
  for (const Row& row : rows) {
    INFO(row.name);
    const TemplateTraits traits = Load(row.name).traits();
    CHECK(traits.system_role == row.system_role);
    CHECK(traits.content == row.content);
    CHECK(traits.tool_calls == row.tool_calls);
    CHECK(traits.arguments == row.arguments);
    CHECK(traits.null_content == row.null_content);
  }
}

TEST_CASE("a template without system role gets the text in the first user turn") {
  const ChatTemplate t = Load("gemma_like");
  const char* kFolded =
      "<s><start_of_turn>user\nBe brief.\nHi<end_of_turn>\n<start_of_turn>model\n";
  CHECK(t.Apply(Request(
            R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}])")) ==
        kFolded);
  CHECK(t.Apply(Request(R"([{"role":"developer","content":"Be brief."},
                            {"role":"user","content":[{"type":"text","text":"Hi"}]}])")) ==
        kFolded);
  CHECK(t.Apply(Request(R"([{"role":"system","content":"Be brief."}])")) ==
        "<s><start_of_turn>user\nBe brief.<end_of_turn>\n<start_of_turn>model\n");
}

TEST_CASE("what a template refuses is reported in its words") {
  const std::string error =
      ErrorOf(Load("gemma_like"),
              Request(R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])"));
  CHECK(error ==
        "chat template, line 1: the template refuses the conversation: User and model must "
        "alternate");
  CHECK_THROWS_AS(
      Load("mistral_like")
          .Apply(Request(R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])")),
      jinja::TemplateRaised);
}

TEST_CASE("developer is system, unless the template knows it") {
  const auto messages = R"([{"role":"developer","content":"D"},{"role":"user","content":"U"}])";
  CHECK(Has(Load("chatml_like").Apply(Request(messages)), "<|im_start|>system\nD<|im_end|>"));
  const ChatTemplate knows(
      "{% for m in messages %}{% if m.role == 'developer' %}DEV{% endif %}{{ m.content }}{% endfor "
      "%}",
      "", "");
  CHECK(knows.Apply(Request(messages)) == "DEVDU");
}

TEST_CASE("contents take the form that the template reads") {
  const auto parts =
      R"([{"role":"user","content":[{"type":"text","text":"A"},{"type":"text","text":"B"}]}])";
  CHECK(Has(Load("chatml_like").Apply(Request(parts)), "user\nAB<|im_end|>"));
  CHECK(Has(Load("coder_like").Apply(Request(parts)), "user\nAB<|im_end|>"));
  CHECK(
      ErrorOf(
          Load("chatml_like"),
          Request(
              R"([{"role":"user","content":"x"},{"role":"user","content":[{"type":"image_url"}]}])")) ==
      "messages[1].content[0]: the model's chat template takes only parts of type \"text\"");
  const ChatTemplate only_parts(
      "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %}{{ "
      "p.text }}"
      "{% endif %}{% endfor %};{% endfor %}",
      "", "");
  CHECK(only_parts.traits().content == ContentForm::kParts);
  CHECK(only_parts.Apply(
            Request(R"([{"role":"system","content":"S"},{"role":"user","content":"U"}])")) ==
        "system:S;user:U;");
}

TEST_CASE("calls reach every template that prints them, however the client writes them") {
  const auto conversation = [](const char* content, const char* arguments) {
    return std::string(R"([{"role":"user","content":"Q"},{"role":"assistant",)") + content +
           R"("tool_calls":[{"id":"abc123XYZ","type":"function","function":{"name":"f","arguments":)" +
           arguments + R"(}}]},{"role":"tool","tool_call_id":"abc123XYZ","content":"7"}])";
  };
  const std::pair<const char*, const char*> rows[] = {
      {"llama3_like", R"({"name": "f", "parameters": {"x": 5}})"},
      {"mistral_like", R"([{"name": "f", "arguments": {"x": 5}, "id": "abc123XYZ"}])"},
      {"qwen3_like", R"({"name": "f", "arguments": {"x": 5}})"},
      {"coder_like", "<function=f>\n<parameter=x>\n5\n</parameter>"},
      {"deepseek_like", "f\n```json\n{\"x\":"},
  };
  for (const auto& [name, expected] : rows) {
    const ChatTemplate t = Load(name);
    for (const char* content : {"", R"("content":null,)", R"("content":"",)"}) {
      for (const char* arguments : {R"({"x":5})", R"("{\"x\": 5}")"}) {
        INFO(name << " " << content << " " << arguments);
        const std::string prompt = t.Apply(Request(conversation(content, arguments), true));
        CHECK_MESSAGE(Has(prompt, expected), prompt);
      }
    }
  }
  const ChatTemplate qwen = Load("qwen3_like");
  CHECK(Has(qwen.Apply(Request(conversation("", R"("")"), true)), R"("arguments": {}})"));
  // What a model wrote wrong stays as it is.
  CHECK(
      Has(qwen.Apply(Request(conversation("", R"("{\"x\": ")"), true)), R"("arguments": {"x": })"));
  const std::string deep(10'000, '[');
  CHECK(Has(qwen.Apply(Request(conversation("", ("\"" + deep + "\"").c_str()), true)), deep));
}

TEST_CASE("missing contents are empty") {
  CHECK(Has(Load("chatml_like")
                .Apply(Request(R"([{"role":"user"},{"role":"assistant","content":null}])")),
            "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"));
}

TEST_CASE("messages of the wrong shape are refused by name") {
  const ChatTemplate t = Load("chatml_like");
  CHECK(ErrorOf(t, Request(R"({"role":"user"})")) == "messages: must be a list, not object");
  CHECK(ErrorOf(t, Request(R"([{"role":"user","content":""},5])")) ==
        "messages[1]: must be an object with a \"role\"");
  CHECK(ErrorOf(t, Request(R"([{"role":5}])")) == "messages[0]: must be an object with a \"role\"");
  ChatRequest request = Request("[]");
  request.extra = "x";
  CHECK(ErrorOf(t, request) == "chat_template_kwargs: must be an object, not string");
}

TEST_CASE("variables: date, prompt, tools and the request's own") {
  const ChatTemplate t(
      "{{ date_string }}|{{ datetime }}|{{ strftime_now('%Y') }}|{{ bos_token }}|{{ eos_token }}|"
      "{{ add_generation_prompt is defined }}|{{ tools is defined }}|{{ a }}|{{ messages|length }}",
      "<s>", "</s>");
  ChatRequest request = Request(R"([{"role":"user","content":"x"}])");
  CHECK(t.Apply(request) == "26 Jul 2026|Jul 26 2026|2026|<s>|</s>|True|False||1");
  request.add_generation_prompt = false;
  request.tools = Json::array();
  request.extra = {{"a", 5}, {"date_string", "today"}};
  CHECK(t.Apply(request) == "today|Jul 26 2026|2026|<s>|</s>|False|False|5|1");
  request.tools = Json::array({1});
  CHECK(Has(t.Apply(request), "|False|True|5|1"));
}

TEST_CASE(
    "the template of a file: the user's, the file's, its one for tools, or one of ours said "
    "aloud") {
  const std::string mine = "mine {{ messages[0].content }}";
  const ChatRequest plain = Request(R"([{"role":"user","content":"x"}])");
  const ChatRequest with_tools = Request(R"([{"role":"user","content":"x"}])", true);
  GgufBuilder b;
  b.Set("general.architecture", "llama");
  {
    const LogCapture log;
    const ChatTemplate t = ChatTemplate::FromGguf(File(b), "<s>", "</s>");
    CHECK(t.is_fallback());
    CHECK(t.source() == ChatTemplate::ChatMl());
    CHECK(Has(g_log, "test.gguf: no chat template to use in the model; taking ChatML"));
    CHECK(t.Apply(plain) == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n");
    g_log.clear();
    CHECK(ChatTemplate::FromGguf(File(b), "", "", mine).Apply(plain) == "mine x");
    CHECK(ChatTemplate::FromGguf(File(b), "", "", "chatml").Apply(plain) == t.Apply(plain));
    CHECK_THROWS_AS(ChatTemplate::FromGguf(File(b), "", "", "{{"), Error);
    CHECK(g_log.empty());
  }
  b.Set("tokenizer.chat_template", "plain {{ messages[0].content }}");
  b.Set("tokenizer.chat_template.tool_use", "tools {{ messages[0].content }}");
  {
    const LogCapture log;
    const ChatTemplate t = ChatTemplate::FromGguf(File(b), "", "");
    CHECK_FALSE(t.is_fallback());
    CHECK(t.Apply(plain) == "plain x");
    CHECK(t.Apply(with_tools) == "tools x");
    CHECK(ChatTemplate::FromGguf(File(b), "", "", mine).Apply(with_tools) == "mine x");
    CHECK(g_log.empty());
  }
  b.Set("tokenizer.chat_template", "\n{% if %}");
  {
    const LogCapture log;
    const ChatTemplate t = ChatTemplate::FromGguf(File(b), "", "");
    CHECK(t.is_fallback());
    CHECK(Has(g_log,
              "test.gguf: tokenizer.chat_template is of no use: chat template, line 2: expected an "
              "expression, found the end of the tag '%}'"));
  }
  GgufBuilder tekken;
  tekken.Set("general.architecture", "llama").Set("llama.block_count", uint32_t{40});
  tekken.Set("tokenizer.ggml.pre", "tekken");
  const LogCapture log;
  CHECK(ChatTemplate::FromGguf(File(tekken), "<s>", "</s>")
            .Apply(Request(R"([{"role":"system","content":"S"},{"role":"user","content":"U"},
                               {"role":"assistant","content":"A"},{"role":"user","content":"V"}])")) ==
        "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]");
}

TEST_CASE("a template that runs away still loads, and says so when used") {
  const ChatTemplate t(
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "", "");
  CHECK(Has(ErrorOf(t, Request(R"([{"role":"user","content":"x"}])")),
            "takes more than 10000000 steps"));
}

TEST_CASE("one BOS in front goes if the vocabulary adds it") {
  CHECK(StripDuplicateBos("<s>a<s>b", true, "<s>") == "a<s>b");
  CHECK(StripDuplicateBos("<s><s>b", true, "<s>") == "<s>b");
  CHECK(StripDuplicateBos("<s>a", false, "<s>") == "<s>a");
  CHECK(StripDuplicateBos("a<s>", true, "<s>") == "a<s>");
  CHECK(StripDuplicateBos("a", true, "") == "a");
}

TEST_CASE("thoughts: tags, switch, and prompts that end inside one") {
  const auto user = R"([{"role":"user","content":"x <think>"}])";
  const ChatTemplate qwen = Load("qwen3_like");
  CHECK(qwen.reasoning().start == "<think>");
  CHECK(qwen.reasoning().end == "</think>");
  CHECK(qwen.has_thinking_switch());
  CHECK_FALSE(qwen.EndsInThought(qwen.Apply(Request(user))));
  ChatRequest off = Request(user);
  off.extra["enable_thinking"] = false;
  CHECK_FALSE(qwen.EndsInThought(qwen.Apply(off)));
  const ChatTemplate coder = Load("coder_like");
  CHECK(coder.EndsInThought(coder.Apply(Request(user))));
  CHECK_FALSE(coder.EndsInThought(coder.Apply(off)));
  CHECK(Load("chatml_like").reasoning().start.empty());
  CHECK_FALSE(Load("chatml_like").EndsInThought("a <think>"));
  CHECK(ChatTemplate("{{ '[THINK]' }}", "", "").reasoning().end == "[/THINK]");
}

TEST_CASE("published templates take system messages, parts and calls in any form") {
  LUTRA_REQUIRE_SHARED(shared);
  size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(shared + "/golden/templates")) {
    const Json file = Json::parse(testing::ReadText(entry.path().string()));
    const ChatTemplate t(file["template"].get<std::string>(), "<s>", "</s>");
    INFO(entry.path().filename().string());
    const std::string prompt = t.Apply(Request(
        R"([{"role":"developer","content":"Sys."},{"role":"user","content":[{"type":"text","text":"Quest."}]}])"));
    CHECK(Has(prompt, "Sys."));
    CHECK(Has(prompt, "Quest."));
    if (t.traits().tool_calls) {
      const std::string with_call = t.Apply(Request(
          R"([{"role":"user","content":"Q"},{"role":"assistant","content":null,"tool_calls":[{"id":"abc123XYZ",
          "type":"function","function":{"name":"f","arguments":"{\"needle\": 5}"}}]},
          {"role":"tool","tool_call_id":"abc123XYZ","name":"f","content":"7"}])",
          true));
      CHECK_MESSAGE(Has(with_call, "needle"), with_call);
      CHECK_FALSE(Has(with_call, "'needle'"));
      CHECK_FALSE(Has(with_call, "\\\"needle"));
    }
    MESSAGE(entry.path().filename().string(), ": content ", static_cast<int>(t.traits().content),
            ", system ", t.traits().system_role, ", calls ", t.traits().tool_calls, ", arguments ",
            static_cast<int>(t.traits().arguments), ", null ", t.traits().null_content);
    ++n;
  }
  CHECK(n >= 16);
}

}  // namespace
}  // namespace lutra
