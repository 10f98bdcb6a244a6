#include "server/constrain.h"

#include <algorithm>

#include "server/api_error.h"
#include "server/limits.h"
#include "server/schema_grammar.h"

namespace lutra::server {
namespace {

[[noreturn]] void Refuse(const std::string& where, const Json& value, const std::string& takes) {
  throw ApiError(400, where + " is " + ShowJson(value) + "; it takes " + takes, where, "invalid_value");
}

const Json& Member(const Json& object, const char* name) {
  static const Json kNull;
  const auto it = object.find(name);
  return it == object.end() ? kNull : *it;
}

}  // namespace

ToolPlan PlanTools(const Params& params, const ServedModel& model) {
  ToolPlan plan;
  const Json& tools = params.tools;
  if (!tools.is_null()) {
    if (tools.size() > kMaxTools) Refuse("tools", tools, "at most " + std::to_string(kMaxTools) + " tools");
    for (size_t i = 0; i < tools.size(); ++i) {
      const std::string at = "tools[" + std::to_string(i) + "]";
      if (!tools[i].is_object()) Refuse(at, tools[i], "{\"type\": \"function\", \"function\": {...}}");
      if (Member(tools[i], "type") != "function") Refuse(at + ".type", Member(tools[i], "type"), "\"function\"");
      const Json& function = Member(tools[i], "function");
      if (!function.is_object()) Refuse(at + ".function", function, "{\"name\", \"description\", \"parameters\"}");
      const Json& name = Member(function, "name");
      if (!name.is_string() || name.get_ref<const std::string&>().empty() || name.get_ref<const std::string&>().size() > 256) {
        Refuse(at + ".function.name", name, "a name of 1 to 256 bytes");
      }
      const Json& parameters = Member(function, "parameters");
      if (!parameters.is_null() && !parameters.is_object()) Refuse(at + ".function.parameters", parameters, "a JSON schema");
      plan.names.push_back(name);
      plan.parameters.push_back(parameters.is_null() ? Json{{"type", "object"}} : parameters);
    }
  }
  std::string choice = "auto";
  std::string named;
  if (params.tool_choice.is_string()) {
    choice = params.tool_choice;
    if (choice != "none" && choice != "auto" && choice != "required") {
      Refuse("tool_choice", params.tool_choice, "none, auto, required or {\"type\": \"function\", \"function\": {\"name\": ...}}");
    }
  } else if (params.tool_choice.is_object()) {
    static const Json kNone = Json::object();
    const Json& function = Member(params.tool_choice, "function");
    const Json& name = Member(function.is_object() ? function : kNone, "name");
    if (Member(params.tool_choice, "type") != "function" || !name.is_string()) {
      Refuse("tool_choice", params.tool_choice, "{\"type\": \"function\", \"function\": {\"name\": ...}}");
    }
    named = name;
    if (std::find(plan.names.begin(), plan.names.end(), named) == plan.names.end()) {
      Refuse("tool_choice.function.name", name, "the name of one of the tools");
    }
    choice = "required";
  }
  if (choice == "required" && plan.names.empty()) {
    throw ApiError(400, "field 'tool_choice' demands a call, but there are no tools", "tool_choice", "invalid_value");
  }
  if (plan.names.empty() || choice == "none") return ToolPlan();
  plan.shown = tools;
  plan.syntax = SyntaxOf(model.chat_template().source());
  plan.required = choice == "required";
  if (!named.empty()) {
    const size_t i = static_cast<size_t>(std::find(plan.names.begin(), plan.names.end(), named) - plan.names.begin());
    plan.parameters = {plan.parameters[i]};
    plan.names = {named};
  }
  return plan;
}

ConstraintMaker PlanConstraint(const Params& params, const ToolPlan& tools, bool in_thought, const ServedModel& model) {
  std::string grammar, field;
  const auto set = [&](const char* name, std::string text) {
    if (!field.empty()) {
      throw ApiError(400, "fields '" + field + "' and '" + name + "' both say what form the answer has; give one", name, "invalid_value");
    }
    field = name;
    grammar = std::move(text);
  };
  if (!params.grammar.empty()) {
    if (params.grammar.size() > kMaxGrammarBytes) {
      throw ApiError(400, Format("field 'grammar' has %zu bytes; it takes at most %zu", params.grammar.size(), kMaxGrammarBytes), "grammar", "invalid_value");
    }
    set("grammar", params.grammar);
  }
  const auto schema = [&](const char* name, const Json& s) {
    if (Dump(s).size() > kMaxSchemaBytes) {
      throw ApiError(400, Format("field '%s' has a schema of more than %zu bytes", name, kMaxSchemaBytes), name, "invalid_schema");
    }
    set(name, SchemaGrammar(s, name));
  };
  if (!params.json_schema.is_null()) schema("json_schema", params.json_schema);
  if (params.response_format.is_object()) {
    const Json& type = Member(params.response_format, "type");
    if (type == "json_object") {
      const Json& s = Member(params.response_format, "schema");
      if (s.is_object()) schema("response_format", s);
      else set("response_format", AnyObjectGrammar());
    } else if (type == "json_schema") {
      const Json& outer = Member(params.response_format, "json_schema");
      if (!outer.is_object()) Refuse("response_format.json_schema", outer, "{\"name\", \"schema\", \"strict\"}");
      const Json& s = Member(outer, "schema");
      if (s.is_null()) set("response_format", AnyObjectGrammar());
      else if (!s.is_object()) Refuse("response_format.json_schema.schema", s, "a JSON schema");
      else schema("response_format", s);
    } else if (type != "text") {
      Refuse("response_format.type", type, "text, json_object or json_schema");
    }
  }
  if (tools.required || (field == "response_format" && !tools.names.empty())) {
    std::string rules;
    std::vector<std::pair<std::string, std::string>> list;
    for (size_t i = 0; i < tools.names.size(); ++i) {
      list.emplace_back(tools.names[i], SchemaRules(tools.parameters[i], "tools", "t" + std::to_string(i) + "x", &rules));
    }
    const std::string calls = tools.syntax->Grammar(list, params.parallel_tool_calls) + rules;
    if (field == "response_format") {
      // Calls, or an answer of the form that was asked for; only calls where one is required.
      constexpr std::string_view kRoot = "root ::=";
      grammar = tools.required ? calls + JsonRules()
                               : "root ::= answer | calls\nanswer ::=" + grammar.substr(kRoot.size()) + "calls ::=" + calls.substr(kRoot.size());
    } else {
      set("tool_choice", calls + JsonRules());
    }
  }
  if (field.empty()) return {};
  std::shared_ptr<CompiledGrammar> compiled;
  try {
    compiled = model.grammars().Get(grammar);
  } catch (const Error& e) {
    throw ApiError(400, "field '" + field + "': " + e.what(), field, "invalid_grammar");
  }
  const std::string trigger = in_thought ? model.chat_template().reasoning().end : "";
  const Tokenizer* tokenizer = &model.tokenizer();
  return [compiled, tokenizer, trigger] { return std::make_shared<GrammarConstraint>(compiled, tokenizer, trigger); };
}

}  // namespace lutra::server
