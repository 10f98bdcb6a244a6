// The call protocol of built-in functions, the tests, and the global functions.
#include "models/chat/jinja/builtins.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "models/chat/jinja/print.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

using Index = std::unordered_map<std::string_view, const Builtin*>;

Index MakeIndex(std::initializer_list<std::span<const Builtin>> tables) {
  Index index;
  for (const auto& table : tables) {
    for (const Builtin& row : table) index.emplace(row.name, &row);
  }
  return index;
}

const Builtin* Lookup(const Index& index, std::string_view name) {
  const auto row = index.find(name);
  return row == index.end() ? nullptr : row->second;
}

// --- tests

template <Op op>
Value CompareTest(const BuiltinCall& c) {
  return Value::Bool(c.rt.Compare(op, c.self, *c.arg[0]));
}

bool IsSame(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.object() != nullptr) return a.object() == b.object();
  if (a.is_string()) return a.str() == b.str();
  if (a.is_float()) return a.number() == b.number();
  return !a.is_integral() || a.integer() == b.integer();
}

// v % n == r.
bool HasRemainder(const BuiltinCall& c, const Value& n, int64_t r) {
  return c.rt.Equal(c.rt.Arithmetic(Op::kModulo, c.self, n), Value::Int(r));
}

bool IsIterable(const Value& v) {
  return v.is_undefined() || v.is_string() || v.sequence() != nullptr || v.dict() != nullptr;
}

bool IsSequence(const Value& v) {
  return v.is_undefined() || v.is_string() || v.dict() != nullptr ||
         (v.sequence() != nullptr && v.sequence()->indexable());
}

// True if there are cased characters and all are of the case that `map` gives.
bool AllInCase(std::string_view text, uint32_t (*map)(uint32_t)) {
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t n = CharLength(text, pos);
    const uint32_t c = CodePoint(text.substr(pos, n));
    pos += n;
    if (!IsCased(c)) continue;
    if (map(c) != c) return false;
    any = true;
  }
  return any;
}

Value TestDivisible(const BuiltinCall& c) { return Value::Bool(HasRemainder(c, *c.arg[0], 0)); }
Value TestEven(const BuiltinCall& c) { return Value::Bool(HasRemainder(c, Value::Int(2), 0)); }
Value TestOdd(const BuiltinCall& c) { return Value::Bool(HasRemainder(c, Value::Int(2), 1)); }
Value TestLower(const BuiltinCall& c) {
  return Value::Bool(AllInCase(ToStr(c.rt, c.self), ToLower));
}
Value TestUpper(const BuiltinCall& c) {
  return Value::Bool(AllInCase(ToStr(c.rt, c.self), ToUpper));
}

#define LUTRA_JINJA_TEST(name, expression) \
  Value name(const BuiltinCall& c) {       \
    const Value& v = c.self;               \
    return Value::Bool(expression);        \
  }
LUTRA_JINJA_TEST(TestBoolean, v.is_bool())
LUTRA_JINJA_TEST(TestCallable, v.object() != nullptr && v.object()->IsCallable())
LUTRA_JINJA_TEST(TestDefined, !v.is_undefined())
LUTRA_JINJA_TEST(TestEscaped, v.is_string() && v.text().markup)
LUTRA_JINJA_TEST(TestFalse, v.is_bool() && v.integer() == 0)
LUTRA_JINJA_TEST(TestFilter, v.is_string() && FindFilter(v.str()) != nullptr)
LUTRA_JINJA_TEST(TestFloat, v.is_float())
LUTRA_JINJA_TEST(TestInteger, v.is_integral() && !v.is_bool())
LUTRA_JINJA_TEST(TestIterable, IsIterable(v))
LUTRA_JINJA_TEST(TestMapping, v.dict() != nullptr)
LUTRA_JINJA_TEST(TestNone, v.is_none())
LUTRA_JINJA_TEST(TestNumber, v.is_number())
LUTRA_JINJA_TEST(TestSameAs, IsSame(v, *c.arg[0]))
LUTRA_JINJA_TEST(TestSequence, IsSequence(v))
LUTRA_JINJA_TEST(TestString, v.is_string())
LUTRA_JINJA_TEST(TestTest, v.is_string() && FindTest(v.str()) != nullptr)
LUTRA_JINJA_TEST(TestTrue, v.is_bool() && v.integer() != 0)
LUTRA_JINJA_TEST(TestUndefined, v.is_undefined())
#undef LUTRA_JINJA_TEST

const Builtin kTests[] = {
    {"boolean", TestBoolean},
    {"callable", TestCallable},
    {"defined", TestDefined},
    {"divisibleby", TestDivisible, 1, {"num"}},
    {"eq", CompareTest<Op::kEqual>, 1, {"other"}},
    {"equalto", CompareTest<Op::kEqual>, 1, {"other"}},
    {"==", CompareTest<Op::kEqual>, 1, {"other"}},
    {"escaped", TestEscaped},
    {"even", TestEven},
    {"false", TestFalse},
    {"filter", TestFilter},
    {"float", TestFloat},
    {"ge", CompareTest<Op::kGreaterEqual>, 1, {"other"}},
    {">=", CompareTest<Op::kGreaterEqual>, 1, {"other"}},
    {"greaterthan", CompareTest<Op::kGreater>, 1, {"other"}},
    {"gt", CompareTest<Op::kGreater>, 1, {"other"}},
    {">", CompareTest<Op::kGreater>, 1, {"other"}},
    {"in", CompareTest<Op::kIn>, 1, {"seq"}},
    {"integer", TestInteger},
    {"iterable", TestIterable},
    {"le", CompareTest<Op::kLessEqual>, 1, {"other"}},
    {"<=", CompareTest<Op::kLessEqual>, 1, {"other"}},
    {"lessthan", CompareTest<Op::kLess>, 1, {"other"}},
    {"lower", TestLower},
    {"lt", CompareTest<Op::kLess>, 1, {"other"}},
    {"<", CompareTest<Op::kLess>, 1, {"other"}},
    {"mapping", TestMapping},
    {"ne", CompareTest<Op::kNotEqual>, 1, {"other"}},
    {"!=", CompareTest<Op::kNotEqual>, 1, {"other"}},
    {"none", TestNone},
    {"number", TestNumber},
    {"odd", TestOdd},
    {"sameas", TestSameAs, 1, {"other"}},
    {"sequence", TestSequence},
    {"string", TestString},
    {"test", TestTest},
    {"true", TestTrue},
    {"undefined", TestUndefined},
    {"upper", TestUpper},
};

// --- functions

// joiner(sep): nothing when called first, then the separator.
class Joiner final : public Object {
 public:
  explicit Joiner(Value separator) : Object(ObjectKind::kOther), separator_(std::move(separator)) {}
  const char* TypeName() const override { return "joiner"; }
  bool IsCallable() const override { return true; }
  Value Call(Runtime& rt, const Arguments&) override {
    if (used_) return separator_;
    used_ = true;
    return rt.String("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

// cycler(items...): next(), reset() and current.
class Cycler final : public Object {
 public:
  explicit Cycler(std::vector<Value> items)
      : Object(ObjectKind::kOther), items_(std::move(items)) {}
  const char* TypeName() const override { return "cycler"; }
  bool GetAttribute(Runtime& rt, const std::string& name, Value* out) override {
    if (name == "current") {
      *out = items_[at_];
    } else if (name == "next" || name == "reset") {
      *out = Value::Of(rt.New<Method>(this, name == "next"));
    } else {
      return false;
    }
    return true;
  }

 private:
  class Method final : public Object {
   public:
    Method(Cycler* cycler, bool next) : Object(ObjectKind::kOther), cycler_(cycler), next_(next) {}
    const char* TypeName() const override { return "method"; }
    bool IsCallable() const override { return true; }
    Value Call(Runtime&, const Arguments&) override {
      const size_t at = cycler_->at_;
      cycler_->at_ = next_ ? (at + 1) % cycler_->items_.size() : 0;
      return next_ ? cycler_->items_[at] : Value::None();
    }

   private:
    Cycler* cycler_;
    bool next_;
  };

  std::vector<Value> items_;
  size_t at_ = 0;
};

Value FnRange(const BuiltinCall& c) {
  int64_t start = 0;
  int64_t stop = c.integer(0);
  if (c.has(1)) {
    start = stop;
    stop = c.integer(1);
  }
  const int64_t step = c.integer(2, 1);
  if (step == 0) c.Fail("the step is zero");
  std::vector<Value> items;
  // Differences as unsigned: start and stop may be far apart.
  const bool up = step > 0;
  if (up ? start < stop : start > stop) {
    const uint64_t span = up ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                             : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
    const uint64_t by =
        up ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
    const uint64_t count = (span - 1) / by + 1;
    if (count > kMaxRange) {
      c.rt.Raise(ErrorCode::kResourceExhausted, "range() of more than %zu numbers", kMaxRange);
    }
    items.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      items.push_back(Value::Int(
          static_cast<int64_t>(static_cast<uint64_t>(start) + i * static_cast<uint64_t>(step))));
    }
  }
  return c.rt.Seq(Sequence::Type::kRange, std::move(items));
}

// dict(mapping or pairs, key=value...), into `out`.
void FillDict(const BuiltinCall& c, Dict* out) {
  if (c.raw.positional.size() > 1) c.Fail("takes at most one argument without name");
  if (!c.raw.positional.empty()) {
    const Value& source = c.raw.positional[0];
    if (const Dict* from = source.dict()) {
      for (const auto& [key, value] : from->items) out->Set(c.rt, key, value);
    } else {
      for (const Value& item : c.rt.Iterate(source)) {
        const std::vector<Value> pair = c.rt.Iterate(item);
        if (pair.size() != 2) c.Fail("needs pairs of key and value");
        out->Set(c.rt, pair[0], pair[1]);
      }
    }
  }
  for (const auto& [key, value] : c.raw.keyword) out->Set(c.rt, c.rt.String(key), value);
}

Value FnDict(const BuiltinCall& c) {
  Dict* dict = c.rt.New<Dict>();
  FillDict(c, dict);
  return Value::Of(dict);
}

Value FnNamespace(const BuiltinCall& c) {
  auto* ns = c.rt.New<Namespace>();
  FillDict(c, &ns->values);
  return Value::Of(ns);
}

Value FnRaise(const BuiltinCall& c) { c.rt.RaiseTemplate(ToStr(c.rt, *c.arg[0])); }

Value FnStrftimeNow(const BuiltinCall& c) {
  return c.rt.String(FormatTime(c.rt, c.rt.now(), c.string(0)));
}

Value FnJoiner(const BuiltinCall& c) {
  return Value::Of(c.rt.New<Joiner>(c.value(0, Value::String(", "))));
}

Value FnCycler(const BuiltinCall& c) {
  if (c.raw.positional.empty()) c.Fail("needs items");
  return Value::Of(c.rt.New<Cycler>(c.raw.positional));
}

const Builtin kFunctions[] = {
    {"cycler", FnCycler, 0, {}, true},
    {"dict", FnDict, 0, {}, true},
    {"joiner", FnJoiner, 0, {"sep"}},
    {"namespace", FnNamespace, 0, {}, true},
    {"raise_exception", FnRaise, 1, {"message"}},
    {"range", FnRange, 1, {"start", "stop", "step"}},
    {"strftime_now", FnStrftimeNow, 1, {"format"}},
};

// --- methods of dict and list

Value DictGet(const BuiltinCall& c) {
  const Value* found = c.self.dict()->Find(c.rt, *c.arg[0]);
  return found != nullptr ? *found : c.value(1);
}

template <Sequence::Type type>
Value DictView(const BuiltinCall& c) {
  std::vector<Value> out;
  for (const auto& [key, value] : c.self.dict()->items) {
    switch (type) {
      case Sequence::Type::kKeys:
        out.push_back(key);
        break;
      case Sequence::Type::kValues:
        out.push_back(value);
        break;
      default:
        out.push_back(c.rt.Tuple({key, value}));
    }
  }
  return c.rt.Seq(type, std::move(out));
}

Value DictCopy(const BuiltinCall& c) { return c.self; }  // nothing can change either

Value ListCount(const BuiltinCall& c) {
  int64_t n = 0;
  for (const Value& v : c.self.sequence()->items) n += c.rt.Equal(v, *c.arg[0]);
  return Value::Int(n);
}

Value ListIndex(const BuiltinCall& c) {
  const std::vector<Value>& items = c.self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (c.rt.Equal(items[i], *c.arg[0])) return Value::Int(static_cast<int64_t>(i));
  }
  c.Fail("the value is not in the list");
}

const Builtin kDictMethods[] = {
    {"copy", DictCopy},
    {"get", DictGet, 1, {"key", "default"}},
    {"items", DictView<Sequence::Type::kItems>},
    {"keys", DictView<Sequence::Type::kKeys>},
    {"values", DictView<Sequence::Type::kValues>},
};
const Builtin kListMethods[] = {
    {"copy", DictCopy},
    {"count", ListCount, 1, {"value"}},
    {"index", ListIndex, 1, {"value"}},
};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListChanges[] = {"append", "clear",  "extend",  "insert",
                                             "pop",    "remove", "reverse", "sort"};

const Builtin* FindRow(std::span<const Builtin> table, std::string_view name) {
  for (const Builtin& row : table) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

bool Includes(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

void BuiltinCall::Fail(const std::string& what) const {
  rt.Raise(ErrorCode::kInvalidArgument, "%s: %s", name, what.c_str());
}

int64_t BuiltinCall::integer(size_t i, int64_t fallback) const {
  if (!has(i)) return fallback;
  if (!arg[i]->is_integral()) {
    rt.RequireDefined(*arg[i]);
    Fail(std::string("needs an integer, got ") + TypeName(*arg[i]));
  }
  return arg[i]->integer();
}

const std::string& BuiltinCall::string(size_t i) const {
  if (!arg[i]->is_string()) {
    rt.RequireDefined(*arg[i]);
    Fail(std::string("needs a string, got ") + TypeName(*arg[i]));
  }
  return arg[i]->str();
}

const Builtin* FindFilter(std::string_view name) {
  static const Index index = MakeIndex({FilterTable(), ListFilterTable()});
  return Lookup(index, name);
}

const Builtin* FindTest(std::string_view name) {
  static const Index index = MakeIndex({kTests});
  return Lookup(index, name);
}

const Builtin* FindFunction(std::string_view name) { return FindRow(kFunctions, name); }

const Builtin* FindMethod(const Value& object, std::string_view name, bool* refused) {
  if (object.is_string()) {
    static const Index index = MakeIndex({StringMethodTable()});
    return Lookup(index, name);
  }
  if (object.dict() != nullptr) {
    *refused = Includes(kDictChanges, name);
    return FindRow(kDictMethods, name);
  }
  const Sequence* s = object.sequence();
  if (s == nullptr || !s->indexable()) return nullptr;
  *refused = s->type == Sequence::Type::kList && Includes(kListChanges, name);
  if (s->type != Sequence::Type::kList && name == "copy") return nullptr;
  return FindRow(kListMethods, name);
}

Value RunBuiltin(Runtime& rt, const Builtin& row, const char* what, const Value& self,
                 const Arguments& args) {
  rt.Charge(1);
  BuiltinCall call{rt, row.name, self, args};
  if (!row.variadic) {
    size_t n_params = 0;
    while (n_params < kMaxParams && row.params[n_params] != nullptr) ++n_params;
    if (args.positional.size() > n_params) {
      rt.Raise(ErrorCode::kInvalidArgument, "%s '%s' takes at most %zu arguments, got %zu", what,
               row.name, n_params, args.positional.size());
    }
    for (size_t i = 0; i < args.positional.size(); ++i) call.arg[i] = &args.positional[i];
    for (const auto& [key, value] : args.keyword) {
      size_t i = 0;
      while (i < n_params && key != row.params[i]) ++i;
      if (i == n_params || call.arg[i] != nullptr) {
        rt.Raise(ErrorCode::kInvalidArgument, "%s '%s' takes no argument '%s'%s", what, row.name,
                 key.c_str(), i == n_params ? "" : " twice");
      }
      call.arg[i] = &value;
    }
    for (size_t i = 0; i < static_cast<size_t>(row.n_required); ++i) {
      if (call.arg[i] == nullptr) {
        rt.Raise(ErrorCode::kInvalidArgument, "%s '%s' needs the argument '%s'", what, row.name,
                 row.params[i]);
      }
    }
  }
  return row.fn(call);
}

}  // namespace lutra::jinja
