// Values of the template language: Python's, as far as templates see them. Strings are shared and
// immutable; every other compound value is an Object owned by the Runtime of one rendering (so
// cycles through namespaces and deep nesting cost nothing to free), and a Value points at it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lutra::jinja {

class Runtime;
class Object;
struct Sequence;
struct Dict;

// A string. A character is a byte and the UTF-8 continuation bytes (10xxxxxx) after it, so every
// byte string has characters. `markup`: the result of `safe` or `escape`, which escapes what is
// added to it.
struct Text {
  explicit Text(std::string text, bool is_markup = false);
  // True if character i is byte i.
  bool bytewise() const { return n_chars == bytes.size(); }

  std::string bytes;
  size_t n_chars;
  bool markup;
};
using TextPtr =
    std::shared_ptr<const Text>;  // shared: strings are copied between variables all the time

enum class Kind : uint8_t { kUndefined, kNone, kBool, kInt, kFloat, kString, kObject };

class Value {
 public:
  Value() = default;  // undefined, without a reason
  static Value None() { return Value(Kind::kNone); }
  static Value Bool(bool b);
  static Value Int(int64_t i);
  static Value Float(double f);
  static Value String(TextPtr text);
  static Value String(std::string text) {
    return String(std::make_shared<const Text>(std::move(text)));
  }
  static Value Undefined(std::string why);  // `why` is the message when it is used
  static Value Of(Object* object);

  Kind kind() const { return kind_; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_bool() const { return kind_ == Kind::kBool; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }  // as in Python
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_float() const { return kind_ == Kind::kFloat; }
  bool is_string() const { return kind_ == Kind::kString; }

  int64_t integer() const { return int_; }  // is_integral()
  double number() const { return is_float() ? float_ : static_cast<double>(int_); }  // is_number()
  const Text& text() const { return *text_; }                                        // is_string()
  const std::string& str() const { return text_->bytes; }
  const TextPtr& text_ptr() const { return text_; }
  const char* why_undefined() const { return text_ ? text_->bytes.c_str() : "value is undefined"; }
  Object* object() const { return kind_ == Kind::kObject ? object_ : nullptr; }
  Sequence* sequence() const;  // nullptr if it is none
  Dict* dict() const;          // nullptr if it is none

 private:
  explicit Value(Kind kind) : kind_(kind) {}

  Kind kind_ = Kind::kUndefined;
  union {
    int64_t int_ = 0;
    double float_;
    Object* object_;
  };
  TextPtr text_;
};

// Arguments of a call, evaluated.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

enum class ObjectKind : uint8_t { kSequence, kDict, kOther };

class Object {
 public:
  explicit Object(ObjectKind kind) : object_kind(kind) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  // Python's name of the type, for messages.
  virtual const char* TypeName() const = 0;
  // The attribute (not item) `name`; false if there is none.
  virtual bool GetAttribute(Runtime&, const std::string&, Value*) { return false; }
  virtual bool IsCallable() const { return false; }
  virtual Value Call(Runtime& rt, const Arguments& args);  // default: not callable, raises
  // What printing shows; sequences and dicts are printed by Repr (print.h).
  virtual std::string Print(Runtime& rt, size_t depth);

  const ObjectKind object_kind;
};

// list, tuple and what iterates: immutable, but a generator is used up by reading.
struct Sequence final : Object {
  enum class Type : uint8_t { kList, kTuple, kGroup, kRange, kGenerator, kKeys, kValues, kItems };
  Sequence(Type t, std::vector<Value> v)
      : Object(ObjectKind::kSequence), type(t), items(std::move(v)) {}
  const char* TypeName() const override;
  bool GetAttribute(Runtime& rt, const std::string& name, Value* out) override;
  bool indexable() const { return type <= Type::kRange; }
  bool sized() const { return type != Type::kGenerator; }
  bool is_tuple() const { return type == Type::kTuple || type == Type::kGroup; }

  Type type;
  std::vector<Value> items;
};

// dict in insertion order. Keys are None, numbers, strings and tuples of those.
struct Dict final : Object {
  Dict() : Object(ObjectKind::kDict) {}
  const char* TypeName() const override { return "dict"; }
  // nullptr if absent. Raises if the key cannot be one.
  const Value* Find(Runtime& rt, const Value& key) const;
  const Value* Find(std::string_view key) const;  // string keys only
  void Set(Runtime& rt, const Value& key, Value value);

  std::vector<std::pair<Value, Value>> items;

 private:
  static constexpr size_t kAbsent = ~size_t{0};
  size_t IndexOf(Runtime& rt, const Value& key) const;
  size_t IndexOf(std::string_view key) const;

  std::unordered_map<std::string, size_t>
      index_;  // by HashKey; only for dicts beyond a few entries
};

// namespace(...): the one thing a template may change.
struct Namespace final : Object {
  Namespace() : Object(ObjectKind::kOther) {}
  const char* TypeName() const override { return "Namespace"; }
  bool GetAttribute(Runtime& rt, const std::string& name, Value* out) override;
  std::string Print(Runtime& rt, size_t depth) override;

  Dict values;
};

// Truth as in Python.
bool Truthy(const Value& v);
// "str", "int", "list", ... for messages.
const char* TypeName(const Value& v);

}  // namespace lutra::jinja
