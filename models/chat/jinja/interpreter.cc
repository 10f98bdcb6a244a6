#include "models/chat/jinja/interpreter.h"

#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"

namespace lutra::jinja {
namespace {

class Macro final : public Object {
 public:
  Macro(Interpreter* interpreter, const MacroDef& def, Scope* scope)
      : Object(ObjectKind::kOther), interpreter_(interpreter), def_(def), scope_(scope) {}
  const char* TypeName() const override { return "macro"; }
  bool IsCallable() const override { return true; }
  Value Call(Runtime&, const Arguments& args) override {
    return interpreter_->CallMacro(def_, scope_, args);
  }
  bool GetAttribute(Runtime& rt, const std::string& name, Value* out) override {
    if (name != "name") return false;
    *out = rt.String(def_.name);
    return true;
  }

 private:
  Interpreter* interpreter_;
  const MacroDef& def_;
  Scope* scope_;
};

// A function of the tables as a value.
class Function final : public Object {
 public:
  explicit Function(const Builtin* row) : Object(ObjectKind::kOther), row_(row) {}
  const char* TypeName() const override { return "function"; }
  bool IsCallable() const override { return true; }
  Value Call(Runtime& rt, const Arguments& args) override {
    return RunBuiltin(rt, *row_, "function", Value::None(), args);
  }

 private:
  const Builtin* row_;
};

// The variable `loop`.
class LoopObject final : public Object {
 public:
  LoopObject(Interpreter* interpreter, const Stmt& stmt, Scope* scope, std::vector<Value> items,
             size_t depth)
      : Object(ObjectKind::kOther),
        interpreter_(interpreter),
        stmt_(stmt),
        scope_(scope),
        items_(std::move(items)),
        length_(items_.size()),
        depth_(depth) {}

  const char* TypeName() const override { return "loop"; }
  bool IsCallable() const override { return true; }
  Value Call(Runtime& rt, const Arguments& args) override {
    if (!stmt_.recursive) {
      rt.Raise(ErrorCode::kInvalidArgument, "loop() needs a loop that is marked 'recursive'");
    }
    if (args.positional.size() != 1 || !args.keyword.empty()) {
      rt.Raise(ErrorCode::kInvalidArgument, "loop() takes one argument, what to loop over");
    }
    return interpreter_->RunLoopAgain(stmt_, scope_, depth_ + 1, args.positional[0]);
  }
  bool GetAttribute(Runtime& rt, const std::string& name, Value* out) override;
  std::string Print(Runtime&, size_t) override {
    return lutra::Format("<LoopContext %zu/%zu>", index + 1, length_);
  }

  const Value& item() const { return items_[index]; }
  // The loop has ended: the object may still be referred to, its items are gone.
  void Release() { items_ = {}; }

  // Both called through methods of the tables below.
  Value Cycle(Runtime& rt, const Arguments& args) const {
    if (args.positional.empty()) {
      rt.Raise(ErrorCode::kInvalidArgument, "loop.cycle() without items to choose from");
    }
    return args.positional[index % args.positional.size()];
  }
  Value Changed(Runtime& rt, const Arguments& args) {
    bool same = last_changed_ && last_changed_->size() == args.positional.size();
    for (size_t i = 0; same && i < args.positional.size(); ++i) {
      same = rt.Equal((*last_changed_)[i], args.positional[i]);
    }
    if (!same) last_changed_ = args.positional;
    return Value::Bool(!same);
  }

  size_t index = 0;

 private:
  Interpreter* interpreter_;
  const Stmt& stmt_;
  Scope* scope_;  // around the loop; only for recursive ones
  std::vector<Value> items_;
  size_t length_;
  size_t depth_;
  std::optional<std::vector<Value>> last_changed_;
};

// loop.cycle and loop.changed.
class LoopMethod final : public Object {
 public:
  LoopMethod(LoopObject* loop, bool cycle)
      : Object(ObjectKind::kOther), loop_(loop), cycle_(cycle) {}
  const char* TypeName() const override { return "method"; }
  bool IsCallable() const override { return true; }
  Value Call(Runtime& rt, const Arguments& args) override {
    return cycle_ ? loop_->Cycle(rt, args) : loop_->Changed(rt, args);
  }

 private:
  LoopObject* loop_;
  bool cycle_;
};

bool LoopObject::GetAttribute(Runtime& rt, const std::string& name, Value* out) {
  const auto number = [out](size_t n) {
    *out = Value::Int(static_cast<int64_t>(n));
    return true;
  };
  const auto neighbour = [&](bool exists, size_t i) {
    *out = exists && i < items_.size() ? items_[i]
                                       : Value::Undefined("the loop has no " + name + " here");
    return true;
  };
  if (name == "index") return number(index + 1);
  if (name == "index0") return number(index);
  if (name == "length") return number(length_);
  if (name == "revindex") return number(length_ - index);
  if (name == "revindex0") return number(length_ - index - 1);
  if (name == "depth") return number(depth_ + 1);
  if (name == "depth0") return number(depth_);
  if (name == "previtem") return neighbour(index > 0, index - 1);
  if (name == "nextitem") return neighbour(true, index + 1);
  if (name == "first" || name == "last") {
    *out = Value::Bool(name == "first" ? index == 0 : index + 1 == length_);
    return true;
  }
  if (name == "cycle" || name == "changed") {
    *out = Value::Of(rt.New<LoopMethod>(this, name == "cycle"));
    return true;
  }
  return false;
}

}  // namespace

// Counts nesting of statements and expressions, so that the native stack is never exhausted.
class Interpreter::Depth {
 public:
  explicit Depth(Interpreter* interpreter) : interpreter_(interpreter) {
    if (++interpreter_->depth_ > kMaxEvalDepth) {
      --interpreter_->depth_;
      interpreter_->Raise(ErrorCode::kResourceExhausted, "nested deeper than %zu levels",
                          kMaxEvalDepth);
    }
  }
  ~Depth() { --interpreter_->depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter* interpreter_;
};

// A scope for the lifetime of a block; kept for good if a macro captured it.
class Interpreter::OwnScope {
 public:
  OwnScope(Interpreter* interpreter, Scope* parent)
      : interpreter_(interpreter),
        outer_(interpreter->scope_),
        scope_(std::make_unique<Scope>(parent)) {
    interpreter_->scope_ = scope_.get();
  }
  ~OwnScope() {
    interpreter_->scope_ = outer_;
    if (scope_->captured) interpreter_->captured_scopes_.push_back(std::move(scope_));
  }
  OwnScope(const OwnScope&) = delete;
  OwnScope& operator=(const OwnScope&) = delete;

  // An empty scope in its place: the next iteration of a loop.
  void Renew() {
    if (scope_->captured) {
      Scope* const parent = scope_->parent;
      interpreter_->captured_scopes_.push_back(std::move(scope_));
      interpreter_->Charge(16);
      scope_ = std::make_unique<Scope>(parent);
      interpreter_->scope_ = scope_.get();
    } else {
      scope_->values.clear();
    }
  }

 private:
  Interpreter* interpreter_;
  Scope* outer_;
  std::unique_ptr<Scope> scope_;
};

// Output goes to a text of its own for the lifetime of a block.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter* interpreter)
      : interpreter_(interpreter), outer_(interpreter->out_) {
    interpreter_->out_ = &text;
  }
  ~Capture() { interpreter_->out_ = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  std::string text;

 private:
  Interpreter* interpreter_;
  std::string* outer_;
};

Interpreter::Interpreter(const Program& program, const nlohmann::ordered_json& context,
                         const RenderOptions& options)
    : Runtime(program.name, options),
      program_(program),
      context_(context),
      context_values_(program.names.size()) {}

std::string Interpreter::Run() {
  const OwnScope root(this, nullptr);
  Capture capture(this);
  Exec(program_.body);
  return std::move(capture.text);
}

// --- statements

Interpreter::Signal Interpreter::Exec(const Block& block) {
  const Depth depth(this);
  for (const Stmt& stmt : block) {
    const Signal signal = ExecStmt(stmt);
    if (signal != Signal::kNone) return signal;
  }
  return Signal::kNone;
}

Interpreter::Signal Interpreter::ExecStmt(const Stmt& stmt) {
  Charge(1);
  line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kText:
      ChargeBytes(stmt.text.size());
      *out_ += stmt.text;
      CheckStringSize(out_->size());
      break;
    case StmtKind::kOutput:
      Output(Eval(*stmt.expr));
      break;
    case StmtKind::kIf:
      return ExecIf(stmt);
    case StmtKind::kFor:
      ExecFor(stmt, Eval(*stmt.expr), 0);
      break;
    case StmtKind::kSet:
      Assign(stmt.target, Eval(*stmt.expr));
      break;
    case StmtKind::kSetAttribute:
      SetNamespace(stmt, Eval(*stmt.expr));
      break;
    case StmtKind::kSetBlock:
      return ExecSetBlock(stmt);
    case StmtKind::kMacro:
      scope_->Set(stmt.target.name, NewMacro(*stmt.macro));
      break;
    case StmtKind::kCallBlock:
      ExecCallBlock(stmt);
      break;
    case StmtKind::kFilterBlock:
      return ExecFilterBlock(stmt);
    case StmtKind::kWith:
      return ExecWith(stmt);
    case StmtKind::kScope:
      return ExecScope(stmt);
    case StmtKind::kBreak:
      return Signal::kBreak;
    case StmtKind::kContinue:
      return Signal::kContinue;
  }
  return Signal::kNone;
}

void Interpreter::Output(const Value& v) {
  Print(*this, v, out_);
  CheckStringSize(out_->size());
}

Interpreter::Signal Interpreter::ExecIf(const Stmt& stmt) {
  for (size_t i = 0; i < stmt.conditions.size(); ++i) {
    if (Truthy(Eval(*stmt.conditions[i]))) return Exec(stmt.blocks[i]);
  }
  if (stmt.blocks.size() > stmt.conditions.size()) return Exec(stmt.blocks.back());
  return Signal::kNone;
}

std::vector<Value> Interpreter::FilterItems(const Stmt& stmt, std::vector<Value> items) {
  std::vector<Value> kept;
  OwnScope scope(this, scope_);
  for (Value& item : items) {
    Charge(1);
    scope.Renew();
    Assign(stmt.target, item);
    if (Truthy(Eval(*stmt.conditions[0]))) kept.push_back(std::move(item));
  }
  return kept;
}

void Interpreter::ExecFor(const Stmt& stmt, const Value& iterable, size_t depth) {
  std::vector<Value> items = Iterate(iterable);
  if (!stmt.conditions.empty()) items = FilterItems(stmt, std::move(items));
  // As in the original, `else` also runs if no iteration reached its end (break or continue in
  // each).
  if (items.empty() || !ExecLoop(stmt, std::move(items), depth)) ExecElse(stmt);
}

void Interpreter::ExecElse(const Stmt& stmt) {
  if (stmt.blocks.size() < 2) return;
  const OwnScope scope(this, scope_);
  Exec(stmt.blocks[1]);
}

bool Interpreter::ExecLoop(const Stmt& stmt, std::vector<Value> items, size_t depth) {
  const size_t n = items.size();
  if (stmt.recursive) {
    for (Scope* s = scope_; s != nullptr; s = s->parent) s->captured = true;
  }
  LoopObject* loop = New<LoopObject>(this, stmt, scope_, std::move(items), depth);
  OwnScope scope(this, scope_);
  bool completed = false;
  for (loop->index = 0; loop->index < n; ++loop->index) {
    Charge(1);
    scope.Renew();
    scope_->Set(program_.loop_name, Value::Of(loop));
    Assign(stmt.target, loop->item());
    const Signal signal = Exec(stmt.blocks[0]);
    if (signal == Signal::kBreak) break;
    completed |= signal == Signal::kNone;
  }
  loop->Release();
  return completed;
}

Value Interpreter::RunLoopAgain(const Stmt& loop, Scope* scope, size_t depth, const Value& items) {
  if (++macro_depth_ > kMaxMacroDepth) {
    Raise(ErrorCode::kResourceExhausted, "loops call themselves deeper than %zu levels",
          kMaxMacroDepth);
  }
  Scope* const outer = std::exchange(scope_, scope);
  Capture capture(this);
  ExecFor(loop, items, depth);
  scope_ = outer;
  --macro_depth_;
  return String(std::move(capture.text));
}

Interpreter::Signal Interpreter::ExecSetBlock(const Stmt& stmt) {
  Value value;
  {
    const OwnScope scope(this, scope_);
    Capture capture(this);
    const Signal signal = Exec(stmt.blocks[0]);
    if (signal != Signal::kNone) return signal;
    value = String(std::move(capture.text));
    if (stmt.expr) value = EvalFilter(*stmt.expr, &value);
  }
  if (stmt.text.empty()) {
    Assign(stmt.target, value);
  } else {
    SetNamespace(stmt, value);
  }
  return Signal::kNone;
}

Interpreter::Signal Interpreter::ExecFilterBlock(const Stmt& stmt) {
  Value value;
  {
    const OwnScope scope(this, scope_);
    Capture capture(this);
    const Signal signal = Exec(stmt.blocks[0]);
    if (signal != Signal::kNone) return signal;
    value = String(std::move(capture.text));
    value = EvalFilter(*stmt.expr, &value);
  }
  Output(value);
  return Signal::kNone;
}

Interpreter::Signal Interpreter::ExecWith(const Stmt& stmt) {
  std::vector<Value> values;  // all evaluated outside of the new scope
  for (const ExprPtr& e : stmt.conditions) values.push_back(Eval(*e));
  const OwnScope scope(this, scope_);
  for (size_t i = 0; i < values.size(); ++i) Assign(stmt.targets[i], values[i]);
  return Exec(stmt.blocks[0]);
}

Interpreter::Signal Interpreter::ExecScope(const Stmt& stmt) {
  const OwnScope scope(this, scope_);
  return Exec(stmt.blocks[0]);
}

void Interpreter::ExecCallBlock(const Stmt& stmt) {
  const Value caller = NewMacro(*stmt.macro);
  Output(EvalCall(*stmt.expr, &caller));
}

void Interpreter::Assign(const Target& target, const Value& value) {
  if (target.name >= 0) {
    scope_->Set(target.name, value);
    return;
  }
  const std::vector<Value> items = Iterate(value);
  if (items.size() != target.parts.size()) {
    Raise(ErrorCode::kInvalidArgument, "%zu values for %zu names", items.size(),
          target.parts.size());
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(target.parts[i], items[i]);
}

void Interpreter::SetNamespace(const Stmt& stmt, const Value& value) {
  Expr name(ExprKind::kName, stmt.line);
  name.name = stmt.target.name;
  const Value object = EvalName(name);
  auto* ns = dynamic_cast<Namespace*>(object.object());
  if (ns == nullptr) {
    Raise(ErrorCode::kInvalidArgument, "'%s' is %s, only attributes of a namespace can be set",
          program_.names[static_cast<size_t>(name.name)].c_str(), TypeName(object));
  }
  ns->values.Set(*this, String(stmt.text), value);
}

Value Interpreter::NewMacro(const MacroDef& macro) {
  for (Scope* s = scope_; s != nullptr && !s->captured; s = s->parent) s->captured = true;
  return Value::Of(New<Macro>(this, macro, scope_));
}

Value Interpreter::CallMacro(const MacroDef& macro, Scope* defined_in, const Arguments& args) {
  if (++macro_depth_ > kMaxMacroDepth) {
    Raise(ErrorCode::kResourceExhausted, "macros call each other deeper than %zu levels",
          kMaxMacroDepth);
  }
  Charge(24);
  const uint32_t line = line_;
  const OwnScope scope(this, defined_in);
  const size_t n = macro.params.size();
  const size_t n_given = std::min(n, args.positional.size());
  for (size_t i = 0; i < n_given; ++i) scope_->Set(macro.params[i], args.positional[i]);

  Dict* extra = macro.uses_kwargs ? New<Dict>() : nullptr;
  Value caller = Value::Undefined("there is no caller: the macro was not used in a 'call' block");
  for (const auto& [key, value] : args.keyword) {
    size_t i = 0;
    while (i < n && program_.names[static_cast<size_t>(macro.params[i])] != key) ++i;
    if (i < n) {
      if (scope_->Find(macro.params[i]) != nullptr) {
        Raise(ErrorCode::kInvalidArgument, "macro '%s' got two values for '%s'", macro.name.c_str(),
              key.c_str());
      }
      scope_->Set(macro.params[i], value);
    } else if (key == "caller" && macro.uses_caller) {
      caller = value;
    } else if (extra != nullptr) {
      extra->Set(*this, String(key), value);
    } else {
      Raise(ErrorCode::kInvalidArgument, "macro '%s' takes no argument '%s'", macro.name.c_str(),
            key.c_str());
    }
  }
  if (args.positional.size() > n && !macro.uses_varargs) {
    Raise(ErrorCode::kInvalidArgument, "macro '%s' takes at most %zu arguments, got %zu",
          macro.name.c_str(), n, args.positional.size());
  }
  const size_t first_default = n - macro.defaults.size();
  for (size_t i = 0; i < n; ++i) {
    if (scope_->Find(macro.params[i]) != nullptr) continue;
    const std::string& name = program_.names[static_cast<size_t>(macro.params[i])];
    scope_->Set(macro.params[i], i >= first_default
                                     ? Eval(*macro.defaults[i - first_default])
                                     : Value::Undefined("parameter '" + name + "' was not given"));
  }
  if (macro.uses_caller && scope_->Find(program_.caller_name) == nullptr) {
    scope_->Set(program_.caller_name, caller);
  }
  if (extra != nullptr) scope_->Set(program_.kwargs_name, Value::Of(extra));
  if (macro.uses_varargs) {
    const auto rest = args.positional.begin() + static_cast<ptrdiff_t>(n_given);
    scope_->Set(program_.varargs_name, Tuple({rest, args.positional.end()}));
  }

  Capture capture(this);
  Exec(*macro.body);
  --macro_depth_;
  line_ = line;
  return String(std::move(capture.text));
}

// --- expressions

Value Interpreter::Eval(const Expr& e) {
  const Depth depth(this);
  Charge(1);
  line_ = e.line;
  switch (e.kind) {
    case ExprKind::kConst:
      return e.value;
    case ExprKind::kName:
      return EvalName(e);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalItems(e);
    case ExprKind::kDict:
      return EvalDict(e);
    case ExprKind::kAttribute:
    case ExprKind::kItem:
      return EvalSubscript(e);
    case ExprKind::kSlice:
      return EvalSlice(e);
    case ExprKind::kCall:
      return EvalCall(e, nullptr);
    case ExprKind::kFilter:
      return EvalFilter(e, nullptr);
    case ExprKind::kTest:
      return EvalTest(e);
    case ExprKind::kNot:
    case ExprKind::kNegate:
    case ExprKind::kPlus:
      return EvalUnary(e);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return EvalLogic(e);
    case ExprKind::kArithmetic:
      return EvalArithmetic(e);
    case ExprKind::kConcat:
      return EvalConcat(e);
    case ExprKind::kCompare:
      return EvalCompare(e);
    case ExprKind::kConditional:
      return EvalConditional(e);
  }
  return Value();
}

Value Interpreter::EvalName(const Expr& e) {
  for (Scope* s = scope_; s != nullptr; s = s->parent) {
    if (const Value* v = s->Find(e.name)) return *v;
  }
  const auto id = static_cast<size_t>(e.name);
  if (!context_values_[id]) {
    const std::string& name = program_.names[id];
    const auto row = context_.find(name);
    if (row != context_.end()) {
      context_values_[id] = FromJson(*row);
    } else if (const Builtin* function = FindFunction(name)) {
      context_values_[id] = Value::Of(New<Function>(function));
    } else {
      context_values_[id] = Value::Undefined("'" + name + "' is undefined");
    }
  }
  return *context_values_[id];
}

Value Interpreter::EvalItems(const Expr& e) {
  std::vector<Value> items;
  items.reserve(e.operands.size());
  for (const ExprPtr& operand : e.operands) items.push_back(Eval(*operand));
  return e.kind == ExprKind::kTuple ? Tuple(std::move(items)) : List(std::move(items));
}

Value Interpreter::EvalDict(const Expr& e) {
  Dict* dict = New<Dict>();
  for (size_t i = 0; i < e.operands.size(); i += 2) {
    const Value key = Eval(*e.operands[i]);
    dict->Set(*this, key, Eval(*e.operands[i + 1]));
  }
  return Value::Of(dict);
}

Value Interpreter::EvalSubscript(const Expr& e) {
  const Value object = Eval(*e.operands[0]);
  if (e.kind == ExprKind::kAttribute) {
    line_ = e.line;
    return Attribute(object, e.text);
  }
  const Value key = Eval(*e.operands[1]);
  line_ = e.line;
  return Item(object, key);
}

Value Interpreter::EvalSlice(const Expr& e) {
  const Value object = Eval(*e.operands[0]);
  Value parts[3];
  for (size_t i = 0; i < 3; ++i) {
    parts[i] = e.operands[i + 1] ? Eval(*e.operands[i + 1]) : Value::None();
  }
  line_ = e.line;
  return Slice(object, parts[0], parts[1], parts[2]);
}

void Interpreter::EvalArguments(const std::vector<Argument>& arguments, Arguments* out) {
  for (const Argument& argument : arguments) {
    Value v = Eval(*argument.value);
    switch (argument.type) {
      case Argument::Type::kPlain:
        out->positional.push_back(std::move(v));
        break;
      case Argument::Type::kKeyword:
        out->keyword.emplace_back(argument.keyword, std::move(v));
        break;
      case Argument::Type::kStar:
        for (Value& item : Iterate(v)) out->positional.push_back(std::move(item));
        break;
      case Argument::Type::kStarStar: {
        const Dict* dict = v.dict();
        if (dict == nullptr) {
          Raise(ErrorCode::kInvalidArgument, "'**' needs a dict, not %s", TypeName(v));
        }
        for (const auto& [key, value] : dict->items) {
          if (!key.is_string()) {
            Raise(ErrorCode::kInvalidArgument, "'**': a key is %s, not str", TypeName(key));
          }
          out->keyword.emplace_back(key.str(), value);
        }
      }
    }
  }
}

Value Interpreter::EvalCall(const Expr& e, const Value* caller) {
  const Expr& callee = *e.operands[0];
  Arguments args;
  if (callee.kind ==
      ExprKind::kAttribute) {  // object.method(...), without an object for the method
    const Value object = Eval(*callee.operands[0]);
    line_ = callee.line;
    RequireDefined(object);
    bool refused = false;
    const Builtin* row = FindMethod(object, callee.text, &refused);
    const Value function = row == nullptr ? Attribute(object, callee.text) : Value();
    EvalArguments(e.arguments, &args);
    line_ = e.line;
    if (row != nullptr) return RunBuiltin(*this, *row, "method", object, args);
    if (caller != nullptr) args.keyword.emplace_back("caller", *caller);
    return Call(function, args);
  }
  const Value function = Eval(callee);
  EvalArguments(e.arguments, &args);
  if (caller != nullptr) args.keyword.emplace_back("caller", *caller);
  line_ = e.line;
  return Call(function, args);
}

Value Interpreter::EvalFilter(const Expr& e, const Value* block_text) {
  const Depth depth(this);
  Value input;
  if (!e.operands[0]) {
    input = *block_text;
  } else if (block_text != nullptr) {
    input = EvalFilter(*e.operands[0], block_text);
  } else {
    input = Eval(*e.operands[0]);
  }
  Arguments args;
  EvalArguments(e.arguments, &args);
  line_ = e.line;
  return CallFilter(e.text, input, args);
}

Value Interpreter::EvalTest(const Expr& e) {
  const Value input = Eval(*e.operands[0]);
  Arguments args;
  EvalArguments(e.arguments, &args);
  line_ = e.line;
  return Value::Bool(CallTest(e.text, input, args));
}

Value Interpreter::EvalUnary(const Expr& e) {
  const Value v = Eval(*e.operands[0]);
  line_ = e.line;
  if (e.kind == ExprKind::kNot) return Value::Bool(!Truthy(v));
  if (e.kind == ExprKind::kNegate) return Negate(v);
  return v.is_float() ? v : Negate(Negate(v));  // +true is 1
}

Value Interpreter::EvalLogic(const Expr& e) {
  Value v;
  for (const ExprPtr& operand : e.operands) {
    v = Eval(*operand);
    if (Truthy(v) == (e.kind == ExprKind::kOr)) break;
  }
  return v;
}

Value Interpreter::EvalArithmetic(const Expr& e) {
  Value v = Eval(*e.operands[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    const Value right = Eval(*e.operands[i + 1]);
    line_ = e.operands[i + 1]->line;
    v = Arithmetic(e.ops[i], v, right);
  }
  return v;
}

Value Interpreter::EvalConcat(const Expr& e) {
  std::string out;
  for (const ExprPtr& operand : e.operands) {
    Print(*this, Eval(*operand), &out);
    CheckStringSize(out.size());
  }
  return String(std::move(out));
}

Value Interpreter::EvalCompare(const Expr& e) {
  Value left = Eval(*e.operands[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = Eval(*e.operands[i + 1]);
    line_ = e.line;
    if (!Compare(e.ops[i], left, right)) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Value Interpreter::EvalConditional(const Expr& e) {
  if (Truthy(Eval(*e.operands[0]))) return Eval(*e.operands[1]);
  if (e.operands[2]) return Eval(*e.operands[2]);
  return Value::Undefined(lutra::Format(
      "the condition of the inline 'if' on line %u was false and it has no 'else'", e.line));
}

// --- the public interface

Template Template::Parse(std::string_view source, std::string_view name) {
  return Template(ParseProgram(source, name));
}

std::string Template::Render(const nlohmann::ordered_json& context,
                             const RenderOptions& options) const {
  if (!context.is_object()) {
    Fail(ErrorCode::kInvalidArgument, "%s: the variables must be a JSON object, not %s",
         program_->name.c_str(), context.type_name());
  }
  return Interpreter(*program_, context, options).Run();
}

}  // namespace lutra::jinja
