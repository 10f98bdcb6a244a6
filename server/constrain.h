// What a request says about the form of its answer, turned into constraints on tokens.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "server/params.h"
#include "server/served_model.h"
#include "server/tool_syntax.h"

namespace lutra::server {

// The tools of a request, checked.
struct ToolPlan {
  Json shown;                          // to the template: null if there are none or none may be called
  const ToolSyntax* syntax = nullptr;  // null: calls are not looked for
  std::vector<std::string> names;
  std::vector<Json> parameters;        // a schema each
  bool required = false;               // the answer must be a call
};

// Throws ApiError(400) naming the member that is wrong.
ToolPlan PlanTools(const Params& params, const ServedModel& model);

// Makes a constraint for one answer; an empty function: everything is allowed.
using ConstraintMaker = std::function<std::shared_ptr<TokenConstraint>()>;

// From response_format, json_schema, grammar and required tools. `in_thought`: the answer begins inside a thought, which is free.
// Throws ApiError(400) naming the field and what is wrong with it.
ConstraintMaker PlanConstraint(const Params& params, const ToolPlan& tools, bool in_thought, const ServedModel& model);

}  // namespace lutra::server
