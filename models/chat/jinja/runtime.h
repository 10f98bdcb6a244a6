// One rendering: its budget, its objects and the operations on values. The interpreter is a
// Runtime; filters, tests, functions and methods get one. Belongs to one thread.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "models/chat/jinja/ast.h"
#include "models/chat/jinja/jinja.h"
#include "models/chat/jinja/value.h"

namespace lutra::jinja {

class Runtime {
 public:
  Runtime(std::string template_name, const RenderOptions& options);
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // --- errors and budget

  // Throws Error naming template and line. TypeError-like misuse is kInvalidArgument.
  [[noreturn]] void Raise(ErrorCode code, const char* format, ...) const
      __attribute__((format(printf, 3, 4)));
  [[noreturn]] void RaiseTemplate(const std::string& message) const;  // TemplateRaised
  // Raises if `v` is undefined (Jinja's UndefinedError).
  void RequireDefined(const Value& v) const {
    if (v.is_undefined()) Raise(ErrorCode::kInvalidArgument, "%s", v.why_undefined());
  }
  // Takes steps from the budget; raises kResourceExhausted when it is empty.
  void Charge(size_t steps) {
    if (steps > steps_left_) RaiseOutOfSteps();
    steps_left_ -= steps;
  }
  // The price of making or reading n bytes.
  void ChargeBytes(size_t n) { Charge(n / 16); }
  // Raises if a string of n bytes, or a list of n items, is more than a template may make.
  void CheckStringSize(size_t n) const;
  void CheckListSize(size_t n) const;

  // --- making values

  Value String(std::string text, bool markup = false);
  template <class T, class... A>
  T* New(A&&... args) {
    Charge(16);
    auto owned = std::make_unique<T>(std::forward<A>(args)...);
    T* object = owned.get();
    objects_.push_back(std::move(owned));
    return object;
  }
  Value Seq(Sequence::Type type, std::vector<Value> items);
  Value List(std::vector<Value> items) { return Seq(Sequence::Type::kList, std::move(items)); }
  Value Tuple(std::vector<Value> items) { return Seq(Sequence::Type::kTuple, std::move(items)); }
  Value Generator(std::vector<Value> items) {
    return Seq(Sequence::Type::kGenerator, std::move(items));
  }
  Value FromJson(const nlohmann::ordered_json& json, size_t depth = 0);

  // --- operations (operators.cc)

  bool Equal(const Value& a, const Value& b, size_t depth = 0);
  // <, <=, >, >= as Python orders; raises for types that have no order.
  bool Ordered(Op op, const Value& a, const Value& b, size_t depth = 0);
  bool Compare(Op op, const Value& a, const Value& b);  // any comparison operator
  bool Contains(const Value& container, const Value& item);
  Value Arithmetic(Op op, const Value& a, const Value& b);
  Value Negate(const Value& v);
  // len(v); raises for what has none.
  size_t Length(const Value& v);
  // The items that iterating gives; uses up a generator. Raises for what cannot be iterated.
  std::vector<Value> Iterate(const Value& v);

  // --- attributes and calls (runtime.cc)

  // v.name: attribute, else item, else undefined.
  Value Attribute(const Value& v, const std::string& name);
  // v.name: attribute only; false if there is none.
  bool PlainAttribute(const Value& v, const std::string& name, Value* out);
  // v[key]: item, else attribute, else undefined.
  Value Item(const Value& v, const Value& key);
  // v[start:stop:step]; None where absent. Raises for what cannot be sliced.
  Value Slice(const Value& v, const Value& start, const Value& stop, const Value& step);
  Value Call(const Value& callee, const Arguments& args);
  Value CallFilter(const std::string& name, const Value& input, const Arguments& args);
  bool CallTest(const std::string& name, const Value& input, const Arguments& args);

  const std::tm& now() const { return now_; }

 protected:
  uint32_t line_ = 1;  // of what is being evaluated

 private:
  [[noreturn]] void RaiseOutOfSteps();

  const std::string template_name_;
  std::tm now_;
  size_t max_steps_;
  size_t steps_left_;
  std::vector<std::unique_ptr<Object>> objects_;
};

// Index of a slice in [0, size] or, for negative steps, [-1, size - 1], as Python clips it.
struct SliceRange {
  int64_t start, step, count;
};
SliceRange ClipSlice(Runtime& rt, const Value& start, const Value& stop, const Value& step,
                     size_t size);

}  // namespace lutra::jinja
