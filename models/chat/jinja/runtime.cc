#include "models/chat/jinja/runtime.h"

#include <cstdarg>

#include "models/chat/jinja/builtins.h"
#include "models/chat/jinja/print.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

// object.method as a value.
class BoundMethod final : public Object {
 public:
  BoundMethod(const Builtin* row, Value self)
      : Object(ObjectKind::kOther), row_(row), self_(std::move(self)) {}
  const char* TypeName() const override { return "method"; }
  bool IsCallable() const override { return true; }
  Value Call(Runtime& rt, const Arguments& args) override {
    return RunBuiltin(rt, *row_, "method", self_, args);
  }

 private:
  const Builtin* row_;
  Value self_;
};

std::string KeyName(const Value& key) {
  if (key.is_string()) return "'" + Printable(key.str(), 60) + "'";
  if (key.is_integral()) return std::to_string(key.integer());
  return TypeName(key);
}

std::tm LocalNow() {
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  return local;
}

bool IsUnset(const std::tm& t) { return t.tm_year == 0 && t.tm_mday == 0; }

}  // namespace

Runtime::Runtime(std::string template_name, const RenderOptions& options)
    : template_name_(std::move(template_name)),
      now_(IsUnset(options.now) ? LocalNow() : options.now),
      max_steps_(options.max_steps),
      steps_left_(options.max_steps) {}

void Runtime::Raise(ErrorCode code, const char* format, ...) const {
  va_list args;
  va_start(args, format);
  const std::string what = FormatV(format, args);
  va_end(args);
  lutra::Fail(code, "%s, line %u: %s", template_name_.c_str(), line_, what.c_str());
}

void Runtime::RaiseTemplate(const std::string& message) const {
  throw TemplateRaised(
      lutra::Format("%s, line %u: the template refuses the conversation: %s",
                    template_name_.c_str(), line_, Printable(message, 2000).c_str()),
      message);
}

void Runtime::RaiseOutOfSteps() {
  steps_left_ = 0;
  Raise(ErrorCode::kResourceExhausted, "the template takes more than %zu steps", max_steps_);
}

void Runtime::CheckStringSize(size_t n) const {
  if (n > kMaxOutputBytes) {
    Raise(ErrorCode::kResourceExhausted, "text of more than %zu bytes", kMaxOutputBytes);
  }
}

void Runtime::CheckListSize(size_t n) const {
  if (n > kMaxListItems) {
    Raise(ErrorCode::kResourceExhausted, "a list or dict of more than %zu items", kMaxListItems);
  }
}

Value Runtime::String(std::string text, bool markup) {
  CheckStringSize(text.size());
  Charge(3 + text.size() / 16);
  return Value::String(std::make_shared<const Text>(std::move(text), markup));
}

Value Runtime::Seq(Sequence::Type type, std::vector<Value> items) {
  CheckListSize(items.size());
  Charge(4 * items.size());
  return Value::Of(New<Sequence>(type, std::move(items)));
}

Value Runtime::FromJson(const nlohmann::ordered_json& json, size_t depth) {
  if (depth > kMaxValueDepth) {
    Raise(ErrorCode::kResourceExhausted, "the input is nested deeper than %zu levels",
          kMaxValueDepth);
  }
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return Value::Bool(json.get<bool>());
    case Type::number_integer:
      return Value::Int(json.get<int64_t>());
    case Type::number_unsigned: {
      const auto u = json.get<uint64_t>();
      // Beyond int64 the value is kept, the exact digits are not.
      return u <= INT64_MAX ? Value::Int(static_cast<int64_t>(u))
                            : Value::Float(static_cast<double>(u));
    }
    case Type::number_float:
      return Value::Float(json.get<double>());
    case Type::string:
      return Value::String(json.get_ref<const std::string&>());
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(FromJson(item, depth + 1));
      return List(std::move(items));
    }
    case Type::object: {
      Dict* dict = New<Dict>();
      for (const auto& [key, value] : json.items()) {
        dict->Set(*this, Value::String(key), FromJson(value, depth + 1));
      }
      return Value::Of(dict);
    }
    default:
      return Value::None();
  }
}

bool Runtime::PlainAttribute(const Value& v, const std::string& name, Value* out) {
  if (Object* o = v.object()) {
    if (o->GetAttribute(*this, name, out)) return true;
  }
  bool refused = false;
  const Builtin* row = FindMethod(v, name, &refused);
  if (refused) {
    *out = Value::Undefined(std::string(TypeName(v)) + "." + name +
                            " would change a value, which chat templates may not");
    return true;
  }
  if (row == nullptr) return false;
  *out = Value::Of(New<BoundMethod>(row, v));
  return true;
}

Value Runtime::Attribute(const Value& v, const std::string& name) {
  RequireDefined(v);
  Value out;
  if (PlainAttribute(v, name, &out)) return out;
  if (const Dict* d = v.dict()) {
    if (const Value* item = d->Find(std::string_view(name))) return *item;
  }
  return Value::Undefined(std::string(TypeName(v)) + " has no attribute '" + name + "'");
}

Value Runtime::Item(const Value& v, const Value& key) {
  RequireDefined(v);
  if (const Dict* d = v.dict()) {
    const bool hashable = key.kind() != Kind::kUndefined && key.dict() == nullptr &&
                          (key.sequence() == nullptr || key.sequence()->is_tuple());
    const Value* item = hashable ? d->Find(*this, key) : nullptr;
    if (item != nullptr) return *item;
  } else if (key.is_integral()) {
    const Sequence* s = v.sequence();
    const bool indexable = v.is_string() || (s != nullptr && s->indexable());
    if (indexable) {
      const auto size = static_cast<int64_t>(Length(v));
      const int64_t i = key.integer() < 0 ? key.integer() + size : key.integer();
      if (i >= 0 && i < size) {
        if (s != nullptr) return s->items[static_cast<size_t>(i)];
        return Slice(v, Value::Int(i), Value::Int(i + 1), Value::None());
      }
    }
  }
  Value out;
  if (key.is_string() && PlainAttribute(v, key.str(), &out)) return out;
  return Value::Undefined(std::string(TypeName(v)) + " has no element " + KeyName(key));
}

SliceRange ClipSlice(Runtime& rt, const Value& start, const Value& stop, const Value& step,
                     size_t size) {
  const auto integer = [&rt](const Value& v, int64_t fallback) {
    if (v.is_none()) return fallback;
    if (!v.is_integral()) {
      rt.RequireDefined(v);
      rt.Raise(ErrorCode::kInvalidArgument, "slice index is %s, not an integer", TypeName(v));
    }
    return v.integer();
  };
  const auto n = static_cast<int64_t>(size);
  const int64_t by = std::max(integer(step, 1), -INT64_MAX);
  if (by == 0) rt.Raise(ErrorCode::kInvalidArgument, "slice step is zero");
  const int64_t low = by > 0 ? 0 : -1;
  const int64_t high = by > 0 ? n : n - 1;
  const auto clip = [&](const Value& v, int64_t fallback) {
    if (v.is_none()) return fallback;
    int64_t i = integer(v, 0);
    if (i < 0) i = i < -n ? low : i + n;
    return std::min(std::max(i, low), high);
  };
  const int64_t first = clip(start, by > 0 ? low : high);
  const int64_t last = clip(stop, by > 0 ? high : low);
  int64_t count = 0;
  if (by > 0 && first < last) count = (last - first - 1) / by + 1;
  if (by < 0 && first > last) count = (first - last - 1) / -by + 1;
  return {first, by, count};
}

Value Runtime::Slice(const Value& v, const Value& start, const Value& stop, const Value& step) {
  RequireDefined(v);
  const Sequence* s = v.sequence();
  if (s != nullptr && s->indexable()) {
    const SliceRange range = ClipSlice(*this, start, stop, step, s->items.size());
    std::vector<Value> items;
    items.reserve(static_cast<size_t>(range.count));
    int64_t i = range.start;
    for (int64_t k = 0; k < range.count; ++k, i += k < range.count ? range.step : 0) {
      items.push_back(s->items[static_cast<size_t>(i)]);
    }
    const auto type = s->type == Sequence::Type::kGroup ? Sequence::Type::kTuple : s->type;
    return Seq(type, std::move(items));
  }
  if (!v.is_string()) {
    Raise(ErrorCode::kInvalidArgument, "%s cannot be sliced", TypeName(v));
  }
  const Text& text = v.text();
  const SliceRange range = ClipSlice(*this, start, stop, step, text.n_chars);
  if (range.count == 0) return String("", text.markup);
  if (text.bytewise() && range.step == 1) {
    return String(
        text.bytes.substr(static_cast<size_t>(range.start), static_cast<size_t>(range.count)),
        text.markup);
  }
  std::vector<uint32_t> starts;  // of each character; texts are at most kMaxOutputBytes or an input
  if (!text.bytewise()) {
    ChargeBytes(text.bytes.size() * 4);
    starts.reserve(text.n_chars + 1);
    for (size_t pos = 0; pos < text.bytes.size(); pos += CharLength(text.bytes, pos)) {
      starts.push_back(static_cast<uint32_t>(pos));
    }
    starts.push_back(static_cast<uint32_t>(text.bytes.size()));
  }
  std::string out;
  int64_t i = range.start;
  for (int64_t k = 0; k < range.count; ++k, i += k < range.count ? range.step : 0) {
    const auto at = static_cast<size_t>(i);
    if (text.bytewise()) {
      out += text.bytes[at];
    } else {
      out.append(text.bytes, starts[at], starts[at + 1] - starts[at]);
    }
  }
  return String(std::move(out), text.markup);
}

Value Runtime::Call(const Value& callee, const Arguments& args) {
  Charge(1);
  RequireDefined(callee);
  Object* o = callee.object();
  if (o == nullptr || !o->IsCallable()) {
    Raise(ErrorCode::kInvalidArgument, "%s is not callable", TypeName(callee));
  }
  return o->Call(*this, args);
}

Value Runtime::CallFilter(const std::string& name, const Value& input, const Arguments& args) {
  Charge(1);
  const Builtin* row = FindFilter(name);
  if (row == nullptr) {
    Raise(ErrorCode::kUnsupported, "unknown filter '%s'", Printable(name, 60).c_str());
  }
  return RunBuiltin(*this, *row, "filter", input, args);
}

bool Runtime::CallTest(const std::string& name, const Value& input, const Arguments& args) {
  Charge(1);
  const Builtin* row = FindTest(name);
  if (row == nullptr) {
    Raise(ErrorCode::kUnsupported, "unknown test '%s'", Printable(name, 60).c_str());
  }
  return Truthy(RunBuiltin(*this, *row, "test", input, args));
}

}  // namespace lutra::jinja
