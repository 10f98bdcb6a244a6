// Jinja templates as chat templates use them: Jinja2 3.1 in the settings of Hugging Face
// transformers (trim_blocks, lstrip_blocks, one trailing newline dropped, no autoescape, loop
// controls, `generation` blocks, an immutable sandbox, `tojson` as json.dumps without ASCII
// escaping, raise_exception, strftime_now). No file access: include, import, extends and block are
// refused.
//
// Known differences from Jinja2: integers are 64-bit (overflow is an error), upper/lower use
// one-to-one case mappings (plus sharp s), map/select/... do their work when called instead of when
// first read, and what comes from a template that runs away is an Error (the limits below) instead
// of a full memory.
#pragma once

#include <cstddef>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace lutra::jinja {

// Limits on what a template may do. A template comes out of a model file: it is data from outside.
inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;  // largest published one: 20 KB
inline constexpr size_t kMaxParseDepth = 128;  // nesting of statements and expressions
inline constexpr size_t kMaxOutputBytes = size_t{4}
                                          << 20;          // of a rendering and of any string in it
inline constexpr size_t kMaxRange = 100'000;              // of range(), as in Jinja2's sandbox
inline constexpr size_t kMaxListItems = size_t{1} << 20;  // of one list or dict
inline constexpr size_t kMaxMacroDepth = 128;  // macros and recursive loops in each other
inline constexpr size_t kMaxEvalDepth = 1000;  // all nesting while rendering: native stack
inline constexpr size_t kMaxValueDepth = 128;  // lists in lists when printed or compared
inline constexpr size_t kDefaultMaxSteps =
    10'000'000;  // nodes evaluated, items made, 16 bytes copied

struct RenderOptions {
  // Local time that strftime_now formats; all zero means the time of rendering.
  std::tm now = {};
  // Budget of steps; Error(kResourceExhausted) when it is used up. At most about 0.2 s of work by
  // default.
  size_t max_steps = kDefaultMaxSteps;
};

// The template itself refused with raise_exception(message): code kInvalidArgument. `what()` names
// the template and line too.
class TemplateRaised : public Error {
 public:
  TemplateRaised(const std::string& what, std::string message)
      : Error(ErrorCode::kInvalidArgument, what), message_(std::move(message)) {}
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

struct Program;  // the parsed template, ast.h

// A parsed template. Immutable: may be shared and rendered from several threads at once.
class Template {
 public:
  // Throws Error naming `name` and the line: kCorrupt for syntax errors, kUnsupported for tags we
  // do not do, kResourceExhausted for a template too long or too deep.
  static Template Parse(std::string_view source, std::string_view name = "chat template");

  // `context` is an object of the template's variables. Throws Error naming template, line and
  // construct: TemplateRaised (see there), kInvalidArgument for operations the values do not allow
  // (a TypeError or UndefinedError of the original), kUnsupported for unknown filters and tests,
  // kResourceExhausted for the limits above.
  std::string Render(const nlohmann::ordered_json& context,
                     const RenderOptions& options = {}) const;

 private:
  explicit Template(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;  // shared: copies of a Template are the same program
};

}  // namespace lutra::jinja
