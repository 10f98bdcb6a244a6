// How models write tool calls, one row a syntax in tool_syntax.cc.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/json.h"

namespace lutra::server {

struct Tool {
  std::string name;
  Json parameters;      // a schema
  bool strict = false;  // arguments match the schema, or the request is refused
};
using Tools = std::vector<Tool>;
// Null if there is none.
const Tool* FindTool(const Tools& tools, std::string_view name);

// What has become known of a call: one with a name begins the next call, the others continue its arguments, which are JSON text.
struct CallPiece {
  std::string name, arguments;
};

// Reads calls while they are written. For one run of calls; one thread.
class CallReader {
 public:
  enum class Status { kMore, kDone, kNoCall };
  virtual ~CallReader() = default;
  // `text` is everything from the trigger on and only grows; `last`: nothing follows. Appends what has become known to *pieces. kDone:
  // the calls are whole and took *used bytes. kNoCall: this is none and cannot become one. Pieces come before the end only as long
  // as all of `text` is as Grammar() writes it.
  virtual Status Read(std::string_view text, bool last, std::vector<CallPiece>* pieces,
                      size_t* used) = 0;
};

class ToolSyntax {
 public:
  virtual ~ToolSyntax() = default;
  virtual const char* name() const = 0;
  // Texts that begin calls. A text "{" begins calls only at the very beginning of the content.
  virtual std::span<const std::string_view> triggers() const = 0;
  // False if what begins like this may yet be something else, until a known tool's name is read.
  virtual bool IsCall(std::string_view) const { return true; }
  // `tools` must outlive the reader.
  virtual std::unique_ptr<CallReader> NewReader(const Tools& tools) const = 0;
  // GBNF, without JsonRules(), of calls from their trigger on. Schemas that cannot be said in a grammar throw ApiError(400) for strict tools;
  // for others any object is allowed (or a oneOf taken as anyOf), and their names are appended to *relaxed.
  virtual std::string Grammar(const Tools& tools, bool parallel,
                              std::vector<std::string>* relaxed) const = 0;
};

// The syntax that a chat template's source tells its model to use, found by the marks in it; never null.
const ToolSyntax* SyntaxOf(std::string_view template_source);
std::span<const ToolSyntax* const> AllToolSyntaxes();

// A fresh "call_..." id.
std::string NewCallId();

}  // namespace lutra::server
