#include "models/chat/jinja/value.h"

#include <cmath>

#include "models/chat/jinja/print.h"
#include "models/chat/jinja/runtime.h"
#include "models/chat/jinja/unicode.h"

namespace lutra::jinja {
namespace {

constexpr size_t kIndexedDictSize = 8;  // below, comparing a few keys is faster than hashing

// Equal keys have equal texts: 1, 1.0 and true are one key, as in Python.
void AppendHashKey(Runtime& rt, const Value& key, std::string* out, size_t depth = 0) {
  if (depth > kMaxValueDepth) {
    rt.Raise(ErrorCode::kResourceExhausted, "dict key nested deeper than %zu", kMaxValueDepth);
  }
  rt.Charge(12);
  if (key.is_string()) {
    rt.ChargeBytes(key.str().size());
    *out += "s" + std::to_string(key.str().size()) + ":" + key.str();
  } else if (key.is_none()) {
    *out += "n";
  } else if (key.is_integral() || (key.is_float() && key.number() == std::floor(key.number()) &&
                                   std::fabs(key.number()) < 9.0e18)) {
    const int64_t i = key.is_integral() ? key.integer() : static_cast<int64_t>(key.number());
    *out += "i" + std::to_string(i) + ";";
  } else if (key.is_float()) {
    *out += "f" + FloatRepr(key.number()) + ";";
  } else if (key.sequence() != nullptr && key.sequence()->is_tuple()) {
    *out += "(";
    for (const Value& item : key.sequence()->items) AppendHashKey(rt, item, out, depth + 1);
    *out += ")";
  } else {
    rt.RequireDefined(key);
    rt.Raise(ErrorCode::kInvalidArgument, "%s cannot be a dict key", TypeName(key));
  }
}

std::string HashKey(Runtime& rt, const Value& key) {
  std::string out;
  AppendHashKey(rt, key, &out);
  return out;
}

}  // namespace

Text::Text(std::string text, bool is_markup)
    : bytes(std::move(text)), n_chars(CountChars(bytes)), markup(is_markup) {}

Value Value::Bool(bool b) {
  Value v(Kind::kBool);
  v.int_ = b;
  return v;
}

Value Value::Int(int64_t i) {
  Value v(Kind::kInt);
  v.int_ = i;
  return v;
}

Value Value::Float(double f) {
  Value v(Kind::kFloat);
  v.float_ = f;
  return v;
}

Value Value::String(TextPtr text) {
  Value v(Kind::kString);
  v.text_ = std::move(text);
  return v;
}

Value Value::Undefined(std::string why) {
  Value v;
  v.text_ = std::make_shared<const Text>(std::move(why));
  return v;
}

Value Value::Of(Object* object) {
  Value v(Kind::kObject);
  v.object_ = object;
  return v;
}

Sequence* Value::sequence() const {
  Object* o = object();
  return o != nullptr && o->object_kind == ObjectKind::kSequence ? static_cast<Sequence*>(o)
                                                                 : nullptr;
}

Dict* Value::dict() const {
  Object* o = object();
  return o != nullptr && o->object_kind == ObjectKind::kDict ? static_cast<Dict*>(o) : nullptr;
}

Value Object::Call(Runtime& rt, const Arguments&) {
  rt.Raise(ErrorCode::kInvalidArgument, "%s is not callable", TypeName());
}

std::string Object::Print(Runtime&, size_t) { return std::string("<") + TypeName() + ">"; }

const char* Sequence::TypeName() const {
  static constexpr const char* kNames[] = {"list",      "tuple",     "tuple",       "range",
                                           "generator", "dict_keys", "dict_values", "dict_items"};
  return kNames[static_cast<size_t>(type)];
}

bool Sequence::GetAttribute(Runtime&, const std::string& name, Value* out) {
  if (type != Type::kGroup || (name != "grouper" && name != "list")) return false;
  *out = items[name == "list"];
  return true;
}

size_t Dict::IndexOf(Runtime& rt, const Value& key) const {
  if (!index_.empty()) {
    const auto row = index_.find(HashKey(rt, key));
    return row == index_.end() ? kAbsent : row->second;
  }
  if (key.is_string()) return IndexOf(std::string_view(key.str()));
  const std::string wanted = HashKey(rt, key);
  for (size_t i = 0; i < items.size(); ++i) {
    if (HashKey(rt, items[i].first) == wanted) return i;
  }
  return kAbsent;
}

size_t Dict::IndexOf(std::string_view key) const {
  if (!index_.empty()) {
    const auto row = index_.find("s" + std::to_string(key.size()) + ":" + std::string(key));
    return row == index_.end() ? kAbsent : row->second;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].first.is_string() && items[i].first.str() == key) return i;
  }
  return kAbsent;
}

const Value* Dict::Find(Runtime& rt, const Value& key) const {
  const size_t i = IndexOf(rt, key);
  return i == kAbsent ? nullptr : &items[i].second;
}

const Value* Dict::Find(std::string_view key) const {
  const size_t i = IndexOf(key);
  return i == kAbsent ? nullptr : &items[i].second;
}

void Dict::Set(Runtime& rt, const Value& key, Value value) {
  const size_t i = IndexOf(rt, key);
  if (i != kAbsent) {
    items[i].second = std::move(value);
    return;
  }
  rt.CheckListSize(items.size() + 1);
  rt.Charge(4);
  items.emplace_back(key, std::move(value));
  if (!index_.empty()) {
    index_.emplace(HashKey(rt, key), items.size() - 1);
  } else if (items.size() > kIndexedDictSize) {
    for (size_t n = 0; n < items.size(); ++n) index_.emplace(HashKey(rt, items[n].first), n);
  }
}

bool Namespace::GetAttribute(Runtime&, const std::string& name, Value* out) {
  const Value* found = values.Find(std::string_view(name));
  if (found == nullptr) return false;
  *out = *found;
  return true;
}

std::string Namespace::Print(Runtime& rt, size_t depth) {
  std::string out = "<Namespace ";
  Repr(rt, Value::Of(&values), &out, depth + 1);
  return out + ">";
}

bool Truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.integer() != 0;
    case Kind::kFloat:
      return v.number() != 0;
    case Kind::kString:
      return !v.str().empty();
    case Kind::kObject:
      break;
  }
  if (const Sequence* s = v.sequence()) return !s->sized() || !s->items.empty();
  if (const Dict* d = v.dict()) return !d->items.empty();
  return true;
}

const char* TypeName(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kObject:
      return v.object()->TypeName();
  }
  return "?";
}

}  // namespace lutra::jinja
