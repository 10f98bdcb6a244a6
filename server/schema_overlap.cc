#include "server/schema_overlap.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace lutra::server {
namespace {

constexpr int kMaxDepth = 40;

enum Type : unsigned {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kAll = 127
};

unsigned TypeOf(const Json& v) {
  if (v.is_null()) return kNull;
  if (v.is_boolean()) return kBoolean;
  if (v.is_string()) return kString;
  if (v.is_array()) return kArray;
  if (v.is_object()) return kObject;
  return v.is_number_integer() || v.get<double>() == std::floor(v.get<double>()) ? kInteger
                                                                                 : kFraction;
}

unsigned TypeNamed(const Json& name) {
  static const std::pair<const char*, unsigned> kNames[] = {
      {"null", kNull},       {"boolean", kBoolean},
      {"integer", kInteger}, {"number", kInteger | kFraction},
      {"string", kString},   {"array", kArray},
      {"object", kObject}};
  for (const auto& [text, type] : kNames) {
    if (name == text) return type;
  }
  return kAll;
}

const Json* Find(const Json& object, const std::string& key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

double NumberOr(const Json& schema, const char* key, double otherwise) {
  const Json* v = Find(schema, key);
  return v != nullptr && v->is_number() ? v->get<double>() : otherwise;
}

class Comparison {
 public:
  Comparison(const Json& root, int* steps) : root_(root), steps_(*steps) {}

  bool Never(const Json& made_ref, const Json& other_ref, int depth) {
    const Json* made_at = Resolve(made_ref);
    const Json* other_at = Resolve(other_ref);
    if (made_at == nullptr || other_at == nullptr || depth > kMaxDepth || --steps_ < 0)
      return false;
    const Json &made = *made_at, &other = *other_at;
    if (made == false || other == false) return true;
    if (!made.is_object() || !other.is_object()) return false;
    if (const auto values = Values(made)) {
      return std::none_of(values->begin(), values->end(),
                          [&](const Json& v) { return May(v, other, depth + 1); });
    }
    if (const auto values = Values(other)) {
      return std::none_of(values->begin(), values->end(),
                          [&](const Json& v) { return May(v, made, depth + 1); });
    }
    // One part of allOf that is apart is enough, of anyOf all must be.
    for (const char* key : {"anyOf", "oneOf"}) {
      if (const Json* list = Find(made, key);
          list != nullptr && list->is_array() && !list->empty()) {
        if (std::all_of(list->begin(), list->end(),
                        [&](const Json& s) { return Never(s, other, depth + 1); }))
          return true;
      }
      if (const Json* list = Find(other, key);
          list != nullptr && list->is_array() && !list->empty()) {
        if (std::all_of(list->begin(), list->end(),
                        [&](const Json& s) { return Never(made, s, depth + 1); }))
          return true;
      }
    }
    if (const Json* list = Find(made, "allOf"); list != nullptr && list->is_array()) {
      if (std::any_of(list->begin(), list->end(),
                      [&](const Json& s) { return Never(s, other, depth + 1); }))
        return true;
    }
    if (const Json* list = Find(other, "allOf"); list != nullptr && list->is_array()) {
      if (std::any_of(list->begin(), list->end(),
                      [&](const Json& s) { return Never(made, s, depth + 1); }))
        return true;
    }
    // Every type that both have must be apart by itself.
    const unsigned both = Types(made, true) & Types(other, false);
    if ((both & (kNull | kBoolean)) != 0) return false;
    if ((both & (kInteger | kFraction)) != 0 && !NumbersApart(made, other)) return false;
    if ((both & kString) != 0 && !CountsApart(made, other, "minLength", "maxLength")) return false;
    if ((both & kArray) != 0 && !ArraysApart(made, other, depth)) return false;
    if ((both & kObject) != 0 && !ObjectsApart(made, other, depth)) return false;
    return true;
  }

  bool May(const Json& v, const Json& schema_ref, int depth) {
    const Json* at = Resolve(schema_ref);
    if (at == nullptr || depth > kMaxDepth || --steps_ < 0) return true;
    const Json& schema = *at;
    if (schema == false) return false;
    if (!schema.is_object()) return true;
    if (v.is_null() && schema.contains("nullable") && schema["nullable"] == true) return true;
    if (const auto values = Values(schema);
        values && std::find(values->begin(), values->end(), v) == values->end())
      return false;
    if ((Types(schema, false) & TypeOf(v)) == 0) return false;
    for (const char* key : {"anyOf", "oneOf"}) {
      const Json* list = Find(schema, key);
      if (list != nullptr && list->is_array() &&
          std::none_of(list->begin(), list->end(),
                       [&](const Json& s) { return May(v, s, depth + 1); }))
        return false;
    }
    if (const Json* list = Find(schema, "allOf"); list != nullptr && list->is_array()) {
      for (const Json& s : *list) {
        if (!May(v, s, depth + 1)) return false;
      }
    }
    if (v.is_number()) {
      const Interval x = Bounds(schema);
      const double n = v.get<double>();
      return !(n < x.low || n > x.high || (n == x.low && x.low_open) ||
               (n == x.high && x.high_open));
    }
    if (v.is_string()) {
      const std::string& text = v.get_ref<const std::string&>();
      const auto n = std::count_if(text.begin(), text.end(),
                                   [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
      return n >= NumberOr(schema, "minLength", 0) && n <= NumberOr(schema, "maxLength", HUGE_VAL);
    }
    if (v.is_array())
      return v.size() >= NumberOr(schema, "minItems", 0) &&
             v.size() <= NumberOr(schema, "maxItems", HUGE_VAL);
    if (!v.is_object()) return true;
    if (const Json* required = Find(schema, "required");
        required != nullptr && required->is_array()) {
      for (const Json& name : *required) {
        if (name.is_string() && !v.contains(name.get_ref<const std::string&>())) return false;
      }
    }
    for (const auto& [name, member] : v.items()) {
      const Json* s = Property(schema, name);
      if (s != nullptr && !May(member, *s, depth + 1)) return false;
    }
    return true;
  }

 private:
  struct Interval {
    double low = -HUGE_VAL, high = HUGE_VAL;
    bool low_open = false, high_open = false;
  };

  // What is looked at costs; false if there is nothing left.
  bool Spend(size_t n) {
    steps_ -= static_cast<int>(std::min<size_t>(n, 1 << 20));
    return steps_ >= 0;
  }

  const Json* Resolve(const Json& schema) {
    const Json* s = &schema;
    for (int i = 0; i < 64; ++i) {
      if (!s->is_object() || !s->contains("$ref")) return s;
      const Json& ref = (*s)["$ref"];
      if (!ref.is_string() || !ref.get_ref<const std::string&>().starts_with("#")) return nullptr;
      try {
        s = &root_.at(Json::json_pointer(ref.get_ref<const std::string&>().substr(1)));
      } catch (const Json::exception&) {
        return nullptr;
      }
    }
    return nullptr;
  }

  // All values, where there are but a few.
  std::optional<Json> Values(const Json& schema) {
    if (schema.contains("nullable") && schema["nullable"] == true) return std::nullopt;
    if (const Json* v = Find(schema, "const")) return Json::array({*v});
    const Json* list = Find(schema, "enum");
    if (list == nullptr || !list->is_array() || !Spend(list->size())) return std::nullopt;
    return *list;
  }

  // The grammar takes the type from the keywords where a schema does not say it; validity does not.
  static unsigned Types(const Json& schema, bool made) {
    unsigned types = 0;
    if (const Json* t = Find(schema, "type")) {
      if (!t->is_array())
        types = TypeNamed(*t);
      else
        for (const Json& one : *t) types |= TypeNamed(one);
    } else if (made && !schema.contains("anyOf") && !schema.contains("oneOf") &&
               !schema.contains("allOf")) {
      const auto any = [&](std::initializer_list<const char*> keys) {
        return std::any_of(keys.begin(), keys.end(),
                           [&](const char* k) { return schema.contains(k); });
      };
      if (any({"properties", "additionalProperties", "required"}))
        types = kObject;
      else if (any({"items", "prefixItems", "minItems", "maxItems"}))
        types = kArray;
      else if (any({"pattern", "minLength", "maxLength", "format"}))
        types = kString;
      else if (any({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}))
        types = kInteger | kFraction;
    }
    if (types == 0) return kAll;
    return schema.contains("nullable") && schema["nullable"] == true ? types | kNull : types;
  }

  static Interval Bounds(const Json& schema) {
    Interval out{NumberOr(schema, "minimum", -HUGE_VAL), NumberOr(schema, "maximum", HUGE_VAL)};
    const double low = NumberOr(schema, "exclusiveMinimum", -HUGE_VAL),
                 high = NumberOr(schema, "exclusiveMaximum", HUGE_VAL);
    if (low >= out.low && low > -HUGE_VAL) out.low = low, out.low_open = true;
    if (high <= out.high && high < HUGE_VAL) out.high = high, out.high_open = true;
    return out;
  }
  static bool NumbersApart(const Json& a, const Json& b) {
    const Interval x = Bounds(a), y = Bounds(b);
    return x.high < y.low || y.high < x.low || (x.high == y.low && (x.high_open || y.low_open)) ||
           (y.high == x.low && (y.high_open || x.low_open));
  }
  static bool CountsApart(const Json& a, const Json& b, const char* min, const char* max) {
    return NumberOr(a, max, HUGE_VAL) < NumberOr(b, min, 0) ||
           NumberOr(b, max, HUGE_VAL) < NumberOr(a, min, 0);
  }
  bool ArraysApart(const Json& made, const Json& other, int depth) {
    if (CountsApart(made, other, "minItems", "maxItems")) return true;
    const Json *a = Find(made, "items"), *b = Find(other, "items");
    return NumberOr(made, "minItems", 0) >= 1 && a != nullptr && b != nullptr && !a->is_array() &&
           !b->is_array() && !made.contains("prefixItems") && !other.contains("prefixItems") &&
           Never(*a, *b, depth + 1);
  }

  // What `schema` says about the property `name`, null if nothing.
  static const Json* Property(const Json& schema, const std::string& name) {
    if (const Json* properties = Find(schema, "properties");
        properties != nullptr && properties->is_object()) {
      if (const Json* p = Find(*properties, name)) return p;
    }
    return Find(schema, "additionalProperties");
  }
  bool Requires(const Json& schema, const Json& name) {
    const Json* required = Find(schema, "required");
    return required != nullptr && required->is_array() && Spend(required->size() / 8) &&
           std::find(required->begin(), required->end(), name) != required->end();
  }
  bool ObjectsApart(const Json& made, const Json& other, int depth) {
    static const Json kNone = Json::object();
    const Json* found = Find(made, "properties");
    const Json& properties = found != nullptr && found->is_object() ? *found : kNone;
    // Other names than those of its properties are written only where additionalProperties says so,
    // or nothing is said at all; what stands in alternatives is not looked through.
    const Json* extra = Find(made, "additionalProperties");
    const Json* own = Find(made, "required");
    const bool extras =
        extra != nullptr ? *extra != false : properties.empty() && (own == nullptr || own->empty());
    const bool more = made.contains("anyOf") || made.contains("oneOf") || made.contains("allOf");
    if (const Json* required = Find(other, "required");
        required != nullptr && required->is_array() && !extras && !more) {
      for (const Json& name : *required) {
        if (name.is_string() && !properties.contains(name.get_ref<const std::string&>()) &&
            !Requires(made, name))
          return true;
      }
    }
    for (const auto& [name, p] : properties.items()) {
      if (!Requires(made, name) && !Requires(other, name)) continue;
      const Json* there = Property(other, name);
      if (there != nullptr && Never(p, *there, depth + 1)) return true;
    }
    return false;
  }

  const Json& root_;
  int& steps_;
};

}  // namespace

bool NeverBoth(const Json& root, const Json& made, const Json& other, int* steps) {
  return Comparison(root, steps).Never(made, other, 0);
}

bool MayBeValid(const Json& root, const Json& value, const Json& schema, int* steps) {
  return Comparison(root, steps).May(value, schema, 0);
}

}  // namespace lutra::server
