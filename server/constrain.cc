#include "server/constrain.h"

#include "server/api_error.h"
#include "server/limits.h"

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
    const Json& name = Member(Member(params.tool_choice, "function").is_object() ? params.tool_choice["function"] : Json::object(), "name");
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

ConstraintMaker PlanConstraint(const Params& params, const ToolPlan& tools, bool, const ServedModel&) {
  if (!params.grammar.empty()) throw ApiError(400, "grammar is not supported yet", "grammar", "unsupported_value");
  if (!params.json_schema.is_null()) throw ApiError(400, "json_schema is not supported yet", "json_schema", "unsupported_value");
  if (params.response_format.is_object() && params.response_format.value("type", Json("")) != "text") {
    throw ApiError(400, "only text is supported yet", "response_format", "unsupported_value");
  }
  if (tools.required) throw ApiError(400, "only auto and none are supported yet", "tool_choice", "unsupported_value");
  return {};
}

}  // namespace lutra::server
