// Python's operators on values.
#include <cmath>
#include <cstring>
#include <limits>

#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"
#include "models/chat/jinja/runtime.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

// Python's comparison of numbers. int64 against double is exact: a double that is not in int64's
// range is compared as double, others as integers after the fraction.
int CompareNumbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  if (a.is_float() && b.is_float()) return a.number() < b.number() ? -1 : a.number() > b.number();
  if (b.is_integral()) return -CompareNumbers(b, a);
  const double f = b.number();
  if (f >= 9.3e18) return -1;
  if (f < -9.3e18) return 1;
  if (std::fabs(f) >= 9.2e18) {
    const double i = static_cast<double>(a.integer());
    return i < f ? -1 : i > f;
  }
  const double whole = std::floor(f);
  const auto i = static_cast<int64_t>(whole);
  if (a.integer() != i) return a.integer() < i ? -1 : 1;
  return f > whole ? -1 : 0;
}

bool IsNan(const Value& v) { return v.is_float() && std::isnan(v.number()); }

[[noreturn]] void RaiseTypes(Runtime& rt, Op op, const Value& a, const Value& b) {
  rt.RequireDefined(a);
  rt.RequireDefined(b);
  rt.Raise(ErrorCode::kInvalidArgument, "'%s' does not work on %s and %s", OpText(op), TypeName(a),
           TypeName(b));
}

[[noreturn]] void RaiseOverflow(Runtime& rt, Op op) {
  rt.Raise(ErrorCode::kUnsupported, "the result of '%s' is an integer beyond 64 bits", OpText(op));
}

void CheckDepth(Runtime& rt, size_t depth) {
  if (depth > kMaxValueDepth) {
    rt.Raise(ErrorCode::kResourceExhausted, "values nested deeper than %zu levels", kMaxValueDepth);
  }
}

double FloorMod(double a, double b) {
  double mod = std::fmod(a, b);
  if (mod != 0) {
    if ((b < 0) != (mod < 0)) mod += b;
  } else {
    mod = std::copysign(0.0, b);
  }
  return mod;
}

double FloorDivide(double a, double b) {
  const double mod = FloorMod(a, b);
  double quotient = (a - mod) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

Value IntegerPower(Runtime& rt, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) rt.Raise(ErrorCode::kInvalidArgument, "0 to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      RaiseOverflow(rt, Op::kPower);
    }
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) RaiseOverflow(rt, Op::kPower);
  }
  return Value::Int(result);
}

Value IntegerArithmetic(Runtime& rt, Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) RaiseOverflow(rt, op);
      return Value::Int(result);
    case Op::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) RaiseOverflow(rt, op);
      return Value::Int(result);
    case Op::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) RaiseOverflow(rt, op);
      return Value::Int(result);
    case Op::kPower:
      return IntegerPower(rt, a, b);
    default:
      break;
  }
  if (b == 0) rt.Raise(ErrorCode::kInvalidArgument, "division by zero");
  if (op == Op::kDivide) return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // INT64_MIN / -1 overflows
    if (op == Op::kModulo) return Value::Int(0);
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) RaiseOverflow(rt, op);
    return Value::Int(result);
  }
  int64_t quotient = a / b;
  int64_t remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  return Value::Int(op == Op::kModulo ? remainder : quotient);
}

Value FloatArithmetic(Runtime& rt, Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value::Float(a + b);
    case Op::kSubtract:
      return Value::Float(a - b);
    case Op::kMultiply:
      return Value::Float(a * b);
    case Op::kPower: {
      const double result = std::pow(a, b);
      if (a == 0 && b < 0) rt.Raise(ErrorCode::kInvalidArgument, "0 to a negative power");
      if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) {
        rt.Raise(ErrorCode::kUnsupported, "a negative number to a fractional power");
      }
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) RaiseOverflow(rt, op);
      return Value::Float(result);
    }
    default:
      break;
  }
  if (b == 0) rt.Raise(ErrorCode::kInvalidArgument, "division by zero");
  if (op == Op::kDivide) return Value::Float(a / b);
  return Value::Float(op == Op::kModulo ? FloorMod(a, b) : FloorDivide(a, b));
}

// text * n, list * n.
Value Repeat(Runtime& rt, const Value& v, int64_t count) {
  const auto n = static_cast<size_t>(std::max<int64_t>(count, 0));
  const size_t size = v.is_string() ? v.str().size() : v.sequence()->items.size();
  if (size == 0 || n == 0) {
    return v.is_string() ? rt.String("", v.text().markup) : rt.Seq(v.sequence()->type, {});
  }
  const size_t limit = v.is_string() ? kMaxOutputBytes : kMaxListItems;
  const size_t total = n > limit / size ? limit + 1 : n * size;
  if (v.is_string()) {
    rt.CheckStringSize(total);
    std::string out;
    out.reserve(total);
    for (size_t i = 0; i < n; ++i) out += v.str();
    return rt.String(std::move(out), v.text().markup);
  }
  rt.CheckListSize(total);
  const std::vector<Value>& items = v.sequence()->items;
  std::vector<Value> out;
  out.reserve(total);
  for (size_t i = 0; i < n; ++i) out.insert(out.end(), items.begin(), items.end());
  return rt.Seq(v.sequence()->type, std::move(out));
}

bool Repeatable(const Value& v) {
  if (v.is_string()) return true;
  const Sequence* s = v.sequence();
  return s != nullptr && (s->type == Sequence::Type::kList || s->is_tuple());
}

Value AddStrings(Runtime& rt, const Value& a, const Value& b) {
  const bool markup = a.text().markup || b.text().markup;
  rt.CheckStringSize(a.str().size() + b.str().size());
  if (!markup) {
    std::string out;
    out.reserve(a.str().size() + b.str().size());
    out += a.str();
    out += b.str();
    return rt.String(std::move(out));
  }
  return rt.String((a.text().markup ? a.str() : EscapeHtml(a.str())) +
                       (b.text().markup ? b.str() : EscapeHtml(b.str())),
                   true);
}

}  // namespace

bool Runtime::Equal(const Value& a, const Value& b, size_t depth) {
  Charge(1);
  if (a.is_number() && b.is_number()) {
    return !IsNan(a) && !IsNan(b) && CompareNumbers(a, b) == 0;
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (a.text_ptr() == b.text_ptr()) return true;
      if (a.str().size() != b.str().size()) return false;
      ChargeBytes(a.str().size());
      return a.str() == b.str();
    default:
      break;
  }
  if (a.object() == b.object()) return true;
  CheckDepth(*this, depth);
  const Sequence* s = a.sequence();
  const Sequence* t = b.sequence();
  if (s != nullptr && t != nullptr) {
    const bool same_type = s->type == t->type || (s->is_tuple() && t->is_tuple());
    if (!same_type || s->type >= Sequence::Type::kGenerator) return false;
    if (s->items.size() != t->items.size()) return false;
    for (size_t i = 0; i < s->items.size(); ++i) {
      if (!Equal(s->items[i], t->items[i], depth + 1)) return false;
    }
    return true;
  }
  const Dict* d = a.dict();
  const Dict* e = b.dict();
  if (d == nullptr || e == nullptr || d->items.size() != e->items.size()) return false;
  for (const auto& [key, value] : d->items) {
    const Value* other = e->Find(*this, key);
    if (other == nullptr || !Equal(value, *other, depth + 1)) return false;
  }
  return true;
}

bool Runtime::Ordered(Op op, const Value& a, const Value& b, size_t depth) {
  Charge(1);
  int order = 0;
  if (a.is_number() && b.is_number()) {
    if (IsNan(a) || IsNan(b)) return false;
    order = CompareNumbers(a, b);
  } else if (a.is_string() && b.is_string()) {
    ChargeBytes(std::min(a.str().size(), b.str().size()));
    order = a.str().compare(b.str());  // byte order of UTF-8 is code point order
  } else {
    const Sequence* s = a.sequence();
    const Sequence* t = b.sequence();
    const bool comparable = s != nullptr && t != nullptr &&
                            ((s->is_tuple() && t->is_tuple()) ||
                             (s->type == t->type && s->type == Sequence::Type::kList));
    if (!comparable) RaiseTypes(*this, op, a, b);
    CheckDepth(*this, depth);
    const size_t n = std::min(s->items.size(), t->items.size());
    for (size_t i = 0; i < n; ++i) {
      if (!Equal(s->items[i], t->items[i], depth + 1)) {
        return Ordered(op, s->items[i], t->items[i], depth + 1);
      }
    }
    order = s->items.size() < t->items.size() ? -1 : s->items.size() > t->items.size();
  }
  switch (op) {
    case Op::kLess:
      return order < 0;
    case Op::kLessEqual:
      return order <= 0;
    case Op::kGreater:
      return order > 0;
    default:
      return order >= 0;
  }
}

bool Runtime::Compare(Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEqual:
      return Equal(a, b);
    case Op::kNotEqual:
      return !Equal(a, b);
    case Op::kIn:
      return Contains(b, a);
    case Op::kNotIn:
      return !Contains(b, a);
    default:
      return Ordered(op, a, b);
  }
}

bool Runtime::Contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) RaiseTypes(*this, Op::kIn, item, container);
    ChargeBytes(container.str().size());
    return FindText(container.str(), item.str()) != std::string_view::npos;
  }
  if (const Dict* d = container.dict()) return d->Find(*this, item) != nullptr;
  if (container.is_undefined()) return false;
  for (const Value& v : Iterate(container)) {
    if (Equal(v, item)) return true;
  }
  return false;
}

Value Runtime::Arithmetic(Op op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) {
      return IntegerArithmetic(*this, op, a.integer(), b.integer());
    }
    return FloatArithmetic(*this, op, a.number(), b.number());
  }
  if (op == Op::kAdd) {
    if (a.is_string() && b.is_string()) return AddStrings(*this, a, b);
    const Sequence* s = a.sequence();
    const Sequence* t = b.sequence();
    if (s != nullptr && t != nullptr && Repeatable(a) && Repeatable(b) &&
        s->is_tuple() == t->is_tuple()) {
      CheckListSize(s->items.size() + t->items.size());
      std::vector<Value> items = s->items;
      items.insert(items.end(), t->items.begin(), t->items.end());
      return Seq(s->is_tuple() ? Sequence::Type::kTuple : s->type, std::move(items));
    }
  }
  if (op == Op::kMultiply) {
    if (Repeatable(a) && b.is_integral()) return Repeat(*this, a, b.integer());
    if (a.is_integral() && Repeatable(b)) return Repeat(*this, b, a.integer());
  }
  if (op == Op::kModulo && a.is_string()) return FormatPercent(*this, a, b);
  RaiseTypes(*this, op, a, b);
}

Value Runtime::Negate(const Value& v) {
  if (v.is_float()) return Value::Float(-v.number());
  if (!v.is_integral()) {
    RequireDefined(v);
    Raise(ErrorCode::kInvalidArgument, "'-' does not work on %s", TypeName(v));
  }
  return IntegerArithmetic(*this, Op::kSubtract, 0, v.integer());
}

size_t Runtime::Length(const Value& v) {
  if (v.is_undefined()) return 0;
  if (v.is_string()) return v.text().n_chars;
  if (const Dict* d = v.dict()) return d->items.size();
  const Sequence* s = v.sequence();
  if (s == nullptr || !s->sized()) {
    Raise(ErrorCode::kInvalidArgument, "%s has no length", TypeName(v));
  }
  return s->items.size();
}

std::vector<Value> Runtime::Iterate(const Value& v) {
  std::vector<Value> items;
  if (v.is_undefined()) return items;
  if (Sequence* s = v.sequence()) {
    Charge(s->items.size() + 1);
    if (s->type == Sequence::Type::kGenerator) return std::exchange(s->items, {});
    return s->items;
  }
  if (const Dict* d = v.dict()) {
    Charge(d->items.size() + 1);
    for (const auto& item : d->items) items.push_back(item.first);
    return items;
  }
  if (v.is_string()) {
    Charge(8 * v.text().n_chars + 1);
    CheckListSize(v.text().n_chars);
    const std::string& s = v.str();
    items.reserve(v.text().n_chars);
    for (size_t pos = 0; pos < s.size();) {
      const size_t n = CharLength(s, pos);
      items.push_back(Value::String(s.substr(pos, n)));
      pos += n;
    }
    return items;
  }
  Raise(ErrorCode::kInvalidArgument, "%s cannot be iterated over", TypeName(v));
}

}  // namespace lutra::jinja
