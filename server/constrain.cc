#include "server/constrain.h"

#include <algorithm>

#include "server/api_error.h"
#include "server/limits.h"
#include "server/schema_grammar.h"

namespace lutra::server {
namespace {

[[noreturn]] void Refuse(const std::string& where, const Json& value, const std::string& takes) {
  throw ApiError(400, where + " is " + ShowJson(value) + "; it takes " + takes, where,
                 "invalid_value");
}

const Json& Member(const Json& object, const char* name) {
  static const Json kNull;
  const auto it = object.find(name);
  return it == object.end() ? kNull : *it;
}

// Where an answer's calls begin, as its reader sees it.
class GateAtCalls final : public GrammarGate {
 public:
  explicit GateAtCalls(const OutputFormat& format) : parser_(format) {}
  bool Feed(std::string_view bytes, std::string* begun) override {
    OutputDelta unused;
    parser_.Feed(bytes, &unused);
    const std::string* calls = parser_.CallText();
    if (calls == nullptr) return false;
    *begun = *calls;
    return true;
  }
  bool optional() const override { return true; }

 private:
  OutputParser parser_;
};

}  // namespace

ToolPlan PlanTools(const Params& params, const ServedModel& model) {
  ToolPlan plan;
  Tools list;
  const Json& tools = params.tools;
  if (!tools.is_null()) {
    if (tools.size() > kMaxTools)
      Refuse("tools", tools, "at most " + std::to_string(kMaxTools) + " tools");
    for (size_t i = 0; i < tools.size(); ++i) {
      const std::string at = "tools[" + std::to_string(i) + "]";
      if (!tools[i].is_object())
        Refuse(at, tools[i], "{\"type\": \"function\", \"function\": {...}}");
      if (Member(tools[i], "type") != "function")
        Refuse(at + ".type", Member(tools[i], "type"), "\"function\"");
      const Json& function = Member(tools[i], "function");
      if (!function.is_object())
        Refuse(at + ".function", function, "{\"name\", \"description\", \"parameters\"}");
      const Json& name = Member(function, "name");
      if (!name.is_string() || name.get_ref<const std::string&>().empty() ||
          name.get_ref<const std::string&>().size() > 256) {
        Refuse(at + ".function.name", name, "a name of 1 to 256 bytes");
      }
      const Json& parameters = Member(function, "parameters");
      if (!parameters.is_null() && !parameters.is_object())
        Refuse(at + ".function.parameters", parameters, "a JSON schema");
      list.push_back({name, parameters.is_null() ? Json{{"type", "object"}} : parameters,
                      Member(function, "strict") == true});
    }
  }
  std::string choice = "auto";
  std::string named;
  if (params.tool_choice.is_string()) {
    choice = params.tool_choice;
    if (choice != "none" && choice != "auto" && choice != "required") {
      Refuse("tool_choice", params.tool_choice,
             "none, auto, required or {\"type\": \"function\", \"function\": {\"name\": ...}}");
    }
  } else if (params.tool_choice.is_object()) {
    static const Json kNone = Json::object();
    const Json& function = Member(params.tool_choice, "function");
    const Json& name = Member(function.is_object() ? function : kNone, "name");
    if (Member(params.tool_choice, "type") != "function" || !name.is_string()) {
      Refuse("tool_choice", params.tool_choice,
             "{\"type\": \"function\", \"function\": {\"name\": ...}}");
    }
    named = name;
    if (FindTool(list, named) == nullptr)
      Refuse("tool_choice.function.name", name, "the name of one of the tools");
    choice = "required";
  }
  if (choice == "required" && list.empty()) {
    throw ApiError(400, "field 'tool_choice' demands a call, but there are no tools", "tool_choice",
                   "invalid_value");
  }
  if (list.empty() || choice == "none") return ToolPlan();
  plan.shown = tools;
  plan.syntax = SyntaxOf(model.chat_template().source());
  plan.required = choice == "required";
  if (!named.empty()) list = {*FindTool(list, named)};
  plan.tools = std::make_shared<const Tools>(std::move(list));
  return plan;
}

AnswerForm PlanAnswer(const Params& params, const ToolPlan& tools, OutputFormat format,
                      const ServedModel& model) {
  AnswerForm form{std::move(format), {}, {}, {}};
  form.format.syntax = tools.syntax;
  form.format.tools = tools.tools;
  std::string grammar, field;
  const auto set = [&](const char* name, std::string text) {
    if (!field.empty()) {
      throw ApiError(
          400,
          "fields '" + field + "' and '" + name + "' both say what form the answer has; give one",
          name, "invalid_value");
    }
    field = name;
    grammar = std::move(text);
  };
  if (!params.grammar.empty()) {
    if (params.grammar.size() > kMaxGrammarBytes) {
      throw ApiError(400,
                     Format("field 'grammar' has %zu bytes; it takes at most %zu",
                            params.grammar.size(), kMaxGrammarBytes),
                     "grammar", "invalid_value");
    }
    set("grammar", params.grammar);
  }
  const auto schema = [&](const char* name, const Json& s, bool strict = false) {
    if (Dump(s).size() > kMaxSchemaBytes) {
      throw ApiError(
          400, Format("field '%s' has a schema of more than %zu bytes", name, kMaxSchemaBytes),
          name, "invalid_schema");
    }
    set(name, SchemaGrammar(s, name, {strict, &form.relaxed_schema}));
  };
  if (!params.json_schema.is_null()) schema("json_schema", params.json_schema);
  if (params.response_format.is_object()) {
    const Json& type = Member(params.response_format, "type");
    if (type == "json_object") {
      const Json& s = Member(params.response_format, "schema");
      if (s.is_object())
        schema("response_format", s);
      else
        set("response_format", AnyObjectGrammar());
    } else if (type == "json_schema") {
      const Json& outer = Member(params.response_format, "json_schema");
      if (!outer.is_object())
        Refuse("response_format.json_schema", outer, "{\"name\", \"schema\", \"strict\"}");
      const Json& s = Member(outer, "schema");
      if (s.is_null())
        set("response_format", AnyObjectGrammar());
      else if (!s.is_object())
        Refuse("response_format.json_schema.schema", s, "a JSON schema");
      else
        schema("response_format", s, Member(outer, "strict") == true);
    } else if (type != "text") {
      Refuse("response_format.type", type, "text, json_object or json_schema");
    }
  }
  bool lazy = false;
  if (tools.syntax != nullptr && field != "grammar") {
    const std::string calls =
        tools.syntax->Grammar(*tools.tools, params.parallel_tool_calls, &form.relaxed);
    lazy = !tools.required && field.empty();
    if (tools.required || lazy) {
      // Where a call is required, an answer's form is of no interest.
      if (field.empty()) field = "tools";
      grammar = calls + JsonRules();
    } else {
      constexpr std::string_view kRoot = "root ::=";
      grammar = "root ::= answer | calls\nanswer ::=" + grammar.substr(kRoot.size()) +
                "calls ::=" + calls.substr(kRoot.size());
    }
    form.format.calls_hold = true;
  } else if (tools.required) {
    throw ApiError(400,
                   "fields 'grammar' and 'tool_choice' both say what form the answer has; give one",
                   "tool_choice", "invalid_value");
  }
  if (field.empty()) return form;
  std::shared_ptr<CompiledGrammar> compiled;
  try {
    compiled = model.grammars().Get(grammar);
  } catch (const Error& e) {
    if (lazy) {
      // Too large a grammar: calls are then read when they are whole.
      form.format.calls_hold = false;
      return form;
    }
    throw ApiError(400, "field '" + field + "': " + e.what(), field, "invalid_grammar");
  }
  form.constraint = [compiled, lazy, tokenizer = &model.tokenizer(), of = form.format,
                     thought_end = model.chat_template().reasoning().end] {
    std::unique_ptr<GrammarGate> gate;
    if (lazy)
      gate = std::make_unique<GateAtCalls>(of);
    else if (of.in_thought)
      gate = GateBehind(thought_end);
    return std::make_shared<GrammarConstraint>(compiled, tokenizer, std::move(gate));
  };
  return form;
}

}  // namespace lutra::server
