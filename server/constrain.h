// What a request says about the form of its answer, turned into constraints on tokens.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "server/output_parser.h"
#include "server/params.h"
#include "server/served_model.h"
#include "server/tool_syntax.h"

namespace lutra::server {

// The tools of a request, checked.
struct ToolPlan {
  Json shown;  // to the template: null if there are none or none may be called
  const ToolSyntax* syntax = nullptr;  // null: calls are not looked for
  std::shared_ptr<const Tools> tools;  // those that may be called
  bool required = false;               // the answer must be a call
};

// Throws ApiError(400) naming the member that is wrong.
ToolPlan PlanTools(const Params& params, const ServedModel& model);

// Makes a constraint for one answer; an empty function: everything is allowed.
using ConstraintMaker = std::function<std::shared_ptr<TokenConstraint>()>;

// The form of a request's answers.
struct AnswerForm {
  OutputFormat format;
  ConstraintMaker constraint;
  std::vector<std::string>
      relaxed;  // tools whose schemas could not be said: their arguments are any object, or a oneOf is taken as anyOf
  std::vector<std::string> relaxed_schema =
      {};  // places of oneOf in the answer's schema that are taken as anyOf
};

// From response_format, json_schema, grammar and tools. `format` says how answers are read; an answer that begins inside a thought is
// free until its end, and calls that the model may make, but need not, are governed from their trigger on. Throws ApiError(400) naming
// the field and what is wrong with it.
AnswerForm PlanAnswer(const Params& params, const ToolPlan& tools, OutputFormat format,
                      const ServedModel& model);

}  // namespace lutra::server
