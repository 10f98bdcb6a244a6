// Filters, tests, functions and methods: tables of rows, one row each. A row names the parameters,
// and BindCall checks arguments against them before the function runs.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "models/chat/jinja/runtime.h"

namespace lutra::jinja {

inline constexpr size_t kMaxParams = 6;

// One call: `self` is the filter's input, the test's subject or the method's object.
struct BuiltinCall {
  Runtime& rt;
  const char* name;
  const Value& self;
  const Arguments& raw;                           // as given; what variadic rows read
  std::array<const Value*, kMaxParams> arg = {};  // by parameter, nullptr where not given

  bool has(size_t i) const { return arg[i] != nullptr; }
  // Argument i, or the fallback. The typed ones raise for other types.
  Value value(size_t i, Value fallback = Value::None()) const {
    return has(i) ? *arg[i] : std::move(fallback);
  }
  bool flag(size_t i, bool fallback) const { return has(i) ? Truthy(*arg[i]) : fallback; }
  int64_t integer(size_t i, int64_t fallback = 0) const;
  const std::string& string(size_t i) const;
  [[noreturn]] void Fail(const std::string& what) const;
};

using BuiltinFn = Value (*)(const BuiltinCall& call);

struct Builtin {
  const char* name;
  BuiltinFn fn;
  int n_required = 0;                               // of the parameters
  std::array<const char*, kMaxParams> params = {};  // names; unused ones are null
  bool variadic = false;                            // takes any arguments, reads them from `raw`
};

// Rows by name, nullptr if there is none.
const Builtin* FindFilter(std::string_view name);
const Builtin* FindTest(std::string_view name);
const Builtin* FindFunction(std::string_view name);  // range, namespace, raise_exception, ...
// Methods by the type of the object; *refused is set for methods that would change it.
const Builtin* FindMethod(const Value& object, std::string_view name, bool* refused);

// Checks the arguments against the row's parameters and runs it. `what`: "filter", "test", ...
Value RunBuiltin(Runtime& rt, const Builtin& row, const char* what, const Value& self,
                 const Arguments& args);

// The tables, one file each.
std::span<const Builtin> FilterTable();        // filters.cc
std::span<const Builtin> ListFilterTable();    // list_filters.cc
std::span<const Builtin> StringMethodTable();  // string_methods.cc

// Helpers shared between those files.
// Position of `needle` at or after `from`; linear in the text for any needle.
size_t FindText(std::string_view text, std::string_view needle, size_t from = 0);
// Position of the last `needle`, npos if there is none.
size_t FindLastText(std::string_view text, std::string_view needle);
Value ReplaceText(Runtime& rt, const Value& text, const std::string& from, const std::string& to,
                  int64_t max_count);
std::string StripChars(Runtime& rt, std::string_view text, const Value* chars, bool left,
                       bool right);
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);
// text % values.
Value FormatPercent(Runtime& rt, const Value& format, const Value& values);
// text.format(...).
Value FormatBraces(Runtime& rt, const Value& format, const Arguments& args);
std::string FormatTime(Runtime& rt, const std::tm& time, const std::string& format);
// int(text): white space around, a sign, underscores between digits.
bool ParseInteger(std::string_view text, int base, int64_t* out);
bool ParseFloat(std::string_view text, double* out);

}  // namespace lutra::jinja
