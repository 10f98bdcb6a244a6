// How models write tool calls, one row a syntax in tool_syntax.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/json.h"

namespace lutra::server {

struct ParsedCall {
  std::string name;
  std::string arguments;  // JSON text
};

class ToolSyntax {
 public:
  virtual ~ToolSyntax() = default;
  virtual const char* name() const = 0;
  // Texts that begin calls. A text "{" begins calls only at the very beginning of the content.
  virtual std::vector<std::string> triggers() const = 0;
  // From a trigger on, reads as many whole calls as `text` has: appends them and returns how many bytes were used, or 0 if no whole
  // call is there yet. nullopt if this can never become a call.
  virtual std::optional<size_t> Parse(std::string_view text, const std::vector<std::string>& names, bool last,
                                      std::vector<ParsedCall>* calls) const = 0;
  // GBNF, without JsonRules(), of an answer that consists of calls; a tool is its name and the rule of its arguments.
  virtual std::string Grammar(const std::vector<std::pair<std::string, std::string>>& tools, bool parallel) const = 0;
};

// The syntax that a chat template's source tells its model to use, found by the marks in it; never null.
const ToolSyntax* SyntaxOf(std::string_view template_source);
std::vector<const ToolSyntax*> AllToolSyntaxes();

// A fresh "call_..." id.
std::string NewCallId();

}  // namespace lutra::server
