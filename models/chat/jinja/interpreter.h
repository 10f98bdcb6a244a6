// Walks the program.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/chat/jinja/ast.h"
#include "models/chat/jinja/runtime.h"

namespace lutra::jinja {

// Variables of one block. Lookup goes outwards through the parents.
struct Scope {
  explicit Scope(Scope* p) : parent(p) {}
  Value* Find(int name) {
    for (auto& [id, value] : values) {
      if (id == name) return &value;
    }
    return nullptr;
  }
  void Set(int name, Value value) {
    if (Value* old = Find(name)) {
      *old = std::move(value);
    } else {
      values.emplace_back(name, std::move(value));
    }
  }

  Scope* parent;
  bool captured = false;  // a macro refers to it: it must outlive its block
  std::vector<std::pair<int, Value>> values;
};

class Interpreter final : public Runtime {
 public:
  Interpreter(const Program& program, const nlohmann::ordered_json& context,
              const RenderOptions& options);

  std::string Run();

  // A macro's (or caller's) body with its arguments bound, as text.
  Value CallMacro(const MacroDef& macro, Scope* defined_in, const Arguments& args);
  // A recursive loop's body over other items, as text.
  Value RunLoopAgain(const Stmt& loop, Scope* scope, size_t depth, const Value& items);

 private:
  enum class Signal { kNone, kBreak, kContinue };
  class Depth;
  class OwnScope;
  class Capture;

  Signal Exec(const Block& block);
  Signal ExecStmt(const Stmt& stmt);
  Signal ExecIf(const Stmt& stmt);
  void ExecFor(const Stmt& stmt, const Value& iterable, size_t depth);
  // True if any iteration ran to its end.
  bool ExecLoop(const Stmt& stmt, std::vector<Value> items, size_t depth);
  void ExecElse(const Stmt& stmt);
  std::vector<Value> FilterItems(const Stmt& stmt, std::vector<Value> items);
  Signal ExecSetBlock(const Stmt& stmt);
  Signal ExecFilterBlock(const Stmt& stmt);
  Signal ExecWith(const Stmt& stmt);
  void ExecCallBlock(const Stmt& stmt);
  Signal ExecScope(const Stmt& stmt);
  void Output(const Value& v);
  void Assign(const Target& target, const Value& value);
  void SetNamespace(const Stmt& stmt, const Value& value);
  Value NewMacro(const MacroDef& macro);

  Value Eval(const Expr& e);
  Value EvalName(const Expr& e);
  Value EvalItems(const Expr& e);
  Value EvalDict(const Expr& e);
  Value EvalSubscript(const Expr& e);
  Value EvalSlice(const Expr& e);
  Value EvalCall(const Expr& e, const Value* caller);
  Value EvalFilter(const Expr& e, const Value* block_text);
  Value EvalTest(const Expr& e);
  Value EvalUnary(const Expr& e);
  Value EvalLogic(const Expr& e);
  Value EvalArithmetic(const Expr& e);
  Value EvalConcat(const Expr& e);
  Value EvalCompare(const Expr& e);
  Value EvalConditional(const Expr& e);
  void EvalArguments(const std::vector<Argument>& arguments, Arguments* out);

  const Program& program_;
  const nlohmann::ordered_json& context_;
  std::vector<std::optional<Value>> context_values_;  // by name, converted when first read
  std::vector<std::unique_ptr<Scope>> captured_scopes_;
  Scope* scope_ = nullptr;
  std::string* out_ = nullptr;
  size_t depth_ = 0;
  size_t macro_depth_ = 0;
};

}  // namespace lutra::jinja
