#include "server/schema_grammar.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/gbnf_text.h"
#include "server/limits.h"
#include "server/pattern.h"
#include "server/schema_overlap.h"

namespace lutra::server {
namespace {

// Keywords that say nothing about validity, or that are read with others.
const std::set<std::string> kAnnotations = {
    "title",           "description", "default",  "examples",      "example",
    "$schema",         "$id",         "id",       "$comment",      "$defs",
    "definitions",     "deprecated",  "readOnly", "writeOnly",     "contentMediaType",
    "contentEncoding", "strict",      "name",     "discriminator", "xml",
    "externalDocs",    "$anchor"};
const std::set<std::string> kKnown = {
    "type",    "enum",        "const",    "properties", "required",         "additionalProperties",
    "items",   "prefixItems", "minItems", "maxItems",   "minLength",        "maxLength",
    "pattern", "format",      "minimum",  "maximum",    "exclusiveMinimum", "exclusiveMaximum",
    "anyOf",   "oneOf",       "allOf",    "$ref",       "nullable"};

// The formats that are honoured, as patterns; "" for others. Some are narrower than what is valid, none is wider.
std::string FormatPattern(const std::string& format) {
  static const std::map<std::string, std::string> kFormats = [] {
    const std::string time =
        "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
    const std::string date =
        "\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]"
        "|1\\d|2[0-8]))";
    const std::string octet = "(25[0-5]|2[0-4]\\d|1\\d{2}|[1-9]\\d|\\d)";
    const std::string label = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?";
    const std::string clock =
        "T(\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S)";
    const std::string days = "(\\d{1,4}Y(\\d{1,4}M(\\d{1,4}D)?)?|\\d{1,4}M(\\d{1,4}D)?|\\d{1,4}D)";
    return std::map<std::string, std::string>{
        {"date", date},
        {"time", time},
        {"date-time", date + "T" + time},
        {"duration", "P(\\d{1,4}W|" + clock + "|" + days + "(" + clock + ")?)"},
        {"uuid", "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"},
        {"ipv4", octet + "(\\." + octet + "){3}"},
        {"ipv6",
         "([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|::1|::|([0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}"},
        {"hostname", label + "(\\." + label + "){0,5}"},
        {"email", "[a-zA-Z0-9_][a-zA-Z0-9_+-]{0,30}(\\.[a-zA-Z0-9_+-]{1,20}){0,3}@(" + label +
                      "\\.){1,3}[a-zA-Z]{2,10}"},
        {"uri",
         "https?://" + label + "(\\." + label +
             "){0,5}(:[1-9]\\d{0,3})?(/[a-zA-Z0-9._~-]{0,40}){0,8}(\\?[a-zA-Z0-9._~=&-]{1,80})?"},
    };
  }();
  const auto it = kFormats.find(format);
  return it == kFormats.end() ? "" : "^(" + it->second + ")$";
}

class Builder {
 public:
  Builder(const Json& root, std::string field, std::string prefix, std::string* rules,
          const SchemaMode& mode)
      : root_(root),
        field_(std::move(field)),
        prefix_(std::move(prefix)),
        rules_(rules),
        mode_(mode) {}

  std::string Value(const Json& schema, const std::string& where) {
    if (depth_ >= kMaxSchemaDepth)
      Refuse(where,
             "schemas are nested deeper than " + std::to_string(kMaxSchemaDepth) + " levels");
    ++depth_;
    std::string rule = OneValue(schema, where);
    --depth_;
    return rule;
  }

  std::string Rule(const std::string& body) {
    const auto [it, added] = by_body_.try_emplace(body, "");
    if (added) {
      it->second = NewName();
      *rules_ += it->second + " ::= " + body + "\n";
    }
    return it->second;
  }

 private:
  std::string OneValue(const Json& schema, const std::string& where) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) Refuse(where, "false allows nothing");
      return "value";
    }
    if (!schema.is_object())
      Refuse(where, std::string("a schema is an object, not ") + JsonTypeName(schema));
    for (const auto& [key, unused] : schema.items()) {
      if (kKnown.count(key) == 0 && kAnnotations.count(key) == 0 && !key.starts_with("x-")) {
        Refuse(where, "the keyword '" + Printable(key, 40) + "' is not supported");
      }
    }
    if (schema.contains("$ref")) {
      // What stands beside a reference holds too.
      Json beside = Json::object();
      for (const auto& [key, value] : schema.items()) {
        if (key != "$ref" && key != "nullable" && kAnnotations.count(key) == 0 &&
            !key.starts_with("x-"))
          beside[key] = value;
      }
      std::string rule =
          beside.empty()
              ? Ref(schema["$ref"], where)
              : Value(Merge(std::move(beside), Json{{"$ref", schema["$ref"]}}, where), where);
      if (schema.contains("nullable") && schema["nullable"] == true)
        rule = Rule(rule + " | \"null\"");
      return rule;
    }
    const bool nullable = schema.contains("nullable") && schema["nullable"] == true;
    std::string rule = Plain(schema, where);
    if (nullable && rule != "value") rule = Rule(rule + " | \"null\"");
    return rule;
  }

  [[noreturn]] void Refuse(const std::string& where, const std::string& what) const {
    throw ApiError(
        400,
        "field '" + field_ + "': at " + (where.empty() ? "the schema's root" : where) + ": " + what,
        field_, "invalid_schema");
  }
  std::string NewName() {
    if (++n_rules_ > kMaxSchemaRules) Refuse("", "the schema is too large");
    return prefix_ + std::to_string(n_rules_);
  }

  std::string Ref(const Json& ref, const std::string& where) {
    if (!ref.is_string() || !ref.get_ref<const std::string&>().starts_with("#")) {
      Refuse(where, "$ref is " + ShowJson(ref) +
                        "; it takes a reference within the schema, such as #/$defs/name");
    }
    const std::string& text = ref.get_ref<const std::string&>();
    const auto found = refs_.find(text);
    if (found != refs_.end()) return found->second;
    const Json* target;
    try {
      target = &root_.at(Json::json_pointer(text.substr(1)));
    } catch (const Json::exception&) {
      Refuse(where, "$ref " + Printable(text, 80) + " leads nowhere");
    }
    // A reference to itself must come through some text.
    for (const Json* t = target; t->is_object() && t->contains("$ref");) {
      if ((*t)["$ref"] == ref) Refuse(where, "$ref " + Printable(text, 80) + " refers to itself");
      if (ref_chain_++ > 1000) Refuse(where, "$ref refers to itself");
      try {
        t = &root_.at(Json::json_pointer((*t)["$ref"].get<std::string>().substr(1)));
      } catch (const std::exception&) {
        break;  // told when that reference is read
      }
    }
    const std::string name = NewName();
    refs_[text] = name;
    const std::string rule = Value(*target, text);
    *rules_ += name + " ::= " + rule + "\n";
    return name;
  }

  static std::vector<std::string> Types(const Json& schema) {
    std::vector<std::string> types;
    if (!schema.contains("type")) return types;
    const Json& t = schema["type"];
    if (t.is_string()) types.push_back(t);
    if (t.is_array()) {
      for (const Json& x : t) types.push_back(x.is_string() ? x.get<std::string>() : "");
    }
    if (types.empty()) types.push_back("");
    return types;
  }

  std::string Alternatives(const Json& list, const std::string& key, const Json& schema,
                           const std::string& where) {
    if (!list.is_array() || list.empty()) Refuse(where, key + " takes a list of schemas");
    // What stands beside the alternatives holds for each.
    Json beside = Json::object();
    for (const auto& [name, value] : schema.items()) {
      if (name != key && name != "nullable" && kAnnotations.count(name) == 0) beside[name] = value;
    }
    std::vector<Json> branches;
    std::string body;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string at = where + "/" + key + "/" + std::to_string(i);
      branches.push_back(beside.empty() ? list[i] : Merge(beside, list[i], at));
    }
    if (key == "oneOf") {
      if (const std::string rule = OneOf(branches, where + "/oneOf"); !rule.empty()) return rule;
    }
    for (size_t i = 0; i < branches.size(); ++i) {
      body +=
          (i > 0 ? " | " : "") + Value(branches[i], where + "/" + key + "/" + std::to_string(i));
    }
    return Rule(body);
  }

  // Values must match exactly one branch. Where it is seen that none matches two, any branch will do: returns "". So it is where that is
  // not seen and the client has not asked for strictness; it is told.
  std::string OneOf(const std::vector<Json>& branches, const std::string& where) {
    const auto is_list = [](const Json& s) {
      return s.is_object() && (s.contains("enum") || s.contains("const")) &&
             std::all_of(s.items().begin(), s.items().end(), [](const auto& m) {
               return m.key() == "enum" || m.key() == "const" || m.key() == "type" ||
                      kAnnotations.count(m.key()) != 0;
             });
    };
    if (std::all_of(branches.begin(), branches.end(), is_list)) {
      // Values that are listed: those of one branch only.
      std::map<std::string, int> n_branches;
      std::vector<const Json*> all;
      const auto key = [](const Json& v) {
        return v.is_number() ? Format("%.17g", v.get<double>()) : Dump(v);
      };  // 1 is 1.0
      for (const Json& branch : branches) {
        std::set<std::string> own;
        const auto take = [&](const Json& v) {
          const std::vector<std::string> types = Types(branch);
          if (!types.empty() && std::none_of(types.begin(), types.end(),
                                             [&](const std::string& t) { return HasType(v, t); }))
            return;
          if (own.insert(key(v)).second) all.push_back(&v);
        };
        if (branch.contains("const")) {
          take(branch["const"]);
        } else if (branch["enum"].is_array()) {
          for (const Json& v : branch["enum"]) take(v);
        } else {
          return "";  // refused when the branch is read
        }
        for (const std::string& k : own) ++n_branches[k];
      }
      std::string body;
      for (const Json* v : all) {
        if (n_branches[key(*v)] == 1) body += (body.empty() ? "" : " | ") + GbnfLiteral(Dump(*v));
      }
      if (body.empty()) Refuse(where, "no value matches exactly one branch");
      return Rule(body);
    }
    for (size_t i = 0; i < branches.size(); ++i) {
      for (size_t j = 0; j < branches.size(); ++j) {
        if (i == j || (branches.size() <= kMaxSchemaOneOf &&
                       NeverBoth(root_, branches[i], branches[j], &overlap_steps_)))
          continue;
        if (mode_.strict) {
          Refuse(where, Format("a value may match both branch %zu and branch %zu; give every "
                               "branch a required property with a const of its "
                               "own, or use anyOf",
                               std::min(i, j), std::max(i, j)));
        }
        if (mode_.relaxed != nullptr) mode_.relaxed->push_back(where);
        return "";
      }
    }
    return "";
  }

  // Both schemas' demands in one.
  Json Merge(Json a, Json b, const std::string& where) {
    if (++n_merges_ > kMaxSchemaMerges) Refuse(where, "the schema is too large");
    for (int i = 0; b.is_object() && b.contains("$ref"); ++i) {
      if (i > 64 || !b["$ref"].is_string()) Refuse(where, "$ref refers to itself");
      try {
        Json target = root_.at(Json::json_pointer(b["$ref"].get<std::string>().substr(1)));
        b.erase("$ref");
        if (!target.is_object()) break;
        target.update(b);
        b = std::move(target);
      } catch (const Json::exception&) {
        Refuse(where, "$ref leads nowhere");
      }
    }
    if (a.is_boolean() || b.is_boolean()) return a.is_boolean() ? b : a;
    if (!a.is_object() || !b.is_object()) Refuse(where, "a schema is an object");
    for (const auto& [key, value] : b.items()) {
      if (kAnnotations.count(key) != 0 || !a.contains(key) || a[key] == value) {
        a[key] = value;
      } else if (key == "properties" && a[key].is_object() && value.is_object()) {
        for (const auto& [name, p] : value.items()) {
          a[key][name] =
              a[key].contains(name) ? Merge(a[key][name], p, where + "/properties/" + name) : p;
        }
      } else if (key == "required" && a[key].is_array() && value.is_array()) {
        for (const Json& r : value) {
          if (std::find(a[key].begin(), a[key].end(), r) == a[key].end()) a[key].push_back(r);
        }
      } else if (key == "type") {
        const std::vector<std::string> x = Types(a), y = Types(b);
        Json both = Json::array();
        for (const std::string& t : x) {
          if (std::find(y.begin(), y.end(), t) != y.end()) both.push_back(t);
          if (t == "number" && std::find(y.begin(), y.end(), "integer") != y.end())
            both.push_back("integer");
          if (t == "integer" && std::find(y.begin(), y.end(), "number") != y.end())
            both.push_back("integer");
        }
        if (both.empty()) Refuse(where, "no type satisfies all");
        a[key] = std::move(both);
      } else if ((key == "minimum" || key == "exclusiveMinimum" || key.starts_with("min")) &&
                 a[key].is_number() && value.is_number()) {
        if (value.get<double>() > a[key].get<double>()) a[key] = value;
      } else if ((key == "maximum" || key == "exclusiveMaximum" || key.starts_with("max")) &&
                 a[key].is_number() && value.is_number()) {
        if (value.get<double>() < a[key].get<double>()) a[key] = value;
      } else if (key == "additionalProperties") {
        if (value == false || a[key] == true) a[key] = value;
      } else {
        Refuse(where, "'" + key + "' is said twice and differently");
      }
    }
    return a;
  }

  std::string Plain(const Json& schema, const std::string& where) {
    if (schema.contains("allOf")) {
      if (!schema["allOf"].is_array() || schema["allOf"].empty())
        Refuse(where, "allOf takes a list of schemas");
      Json merged = schema;
      merged.erase("allOf");
      for (const Json& part : schema["allOf"])
        merged = Merge(std::move(merged), part, where + "/allOf");
      if (merged.is_object() && merged.contains("allOf") && ++n_merges_ > kMaxSchemaMerges)
        Refuse(where, "the schema is too large");
      return Value(merged, where);
    }
    if (schema.contains("anyOf")) return Alternatives(schema["anyOf"], "anyOf", schema, where);
    if (schema.contains("oneOf")) return Alternatives(schema["oneOf"], "oneOf", schema, where);
    const std::vector<std::string> types = Types(schema);
    if (schema.contains("const")) return Rule(GbnfLiteral(Dump(schema["const"])));
    if (schema.contains("enum")) {
      const Json& list = schema["enum"];
      if (!list.is_array() || list.empty()) Refuse(where, "enum takes a list of values");
      std::string body;
      for (const Json& v : list) {
        if (!types.empty() && std::none_of(types.begin(), types.end(),
                                           [&](const std::string& t) { return HasType(v, t); }))
          continue;
        body += (body.empty() ? "" : " | ") + GbnfLiteral(Dump(v));
      }
      if (body.empty()) Refuse(where, "no value of enum has the type");
      return Rule(body);
    }
    if (types.empty()) {
      // The keywords tell the type that is meant.
      if (schema.contains("properties") || schema.contains("additionalProperties") ||
          schema.contains("required"))
        return Object(schema, where);
      if (schema.contains("items") || schema.contains("prefixItems") ||
          schema.contains("minItems") || schema.contains("maxItems"))
        return Array(schema, where);
      if (schema.contains("pattern") || schema.contains("minLength") ||
          schema.contains("maxLength") || schema.contains("format"))
        return String(schema, where);
      for (const char* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
        if (schema.contains(key)) return Number(schema, where, false);
      }
      return "value";
    }
    std::string body;
    for (const std::string& t : types) {
      std::string one;
      if (t == "object")
        one = Object(schema, where);
      else if (t == "array")
        one = Array(schema, where);
      else if (t == "string")
        one = String(schema, where);
      else if (t == "number")
        one = Number(schema, where, false);
      else if (t == "integer")
        one = Number(schema, where, true);
      else if (t == "boolean")
        one = "boolean";
      else if (t == "null")
        one = "null";
      else
        Refuse(where, "type is " + ShowJson(schema["type"]) +
                          "; it takes object, array, string, number, integer, boolean or null");
      body += (body.empty() ? "" : " | ") + one;
    }
    return types.size() == 1 ? body : Rule(body);
  }

  static bool HasType(const Json& v, const std::string& t) {
    return (t == "object" && v.is_object()) || (t == "array" && v.is_array()) ||
           (t == "string" && v.is_string()) || (t == "number" && v.is_number()) ||
           (t == "boolean" && v.is_boolean()) || (t == "null" && v.is_null()) ||
           (t == "integer" && (v.is_number_integer() ||
                               (v.is_number() && v.get<double>() == std::floor(v.get<double>()))));
  }

  std::string Object(const Json& schema, const std::string& where) {
    const Json properties = schema.contains("properties") ? schema["properties"] : Json::object();
    if (!properties.is_object()) Refuse(where, "properties takes an object");
    std::set<std::string> required;
    std::vector<std::string> extra_required;
    if (schema.contains("required")) {
      if (!schema["required"].is_array()) Refuse(where, "required takes a list of names");
      for (const Json& r : schema["required"]) {
        if (!r.is_string()) Refuse(where, "required takes a list of names");
        if (required.insert(r).second && !properties.contains(r.get_ref<const std::string&>()))
          extra_required.push_back(r);
      }
    }
    const bool has_extra = schema.contains("additionalProperties");
    const Json extra_schema = has_extra ? schema["additionalProperties"]
                                        : Json(properties.empty() && extra_required.empty());
    const bool extra = !(extra_schema.is_boolean() && !extra_schema.get<bool>());
    if (properties.empty() && extra_required.empty() && extra &&
        (extra_schema.is_boolean() || extra_schema.empty()))
      return "object";
    struct Property {
      std::string pair;  // "name" : value
      bool required;
    };
    std::vector<Property> list;
    for (const auto& [name, p] : properties.items()) {
      list.push_back(
          {GbnfLiteral(Dump(Json(name))) + " \":\" ws " + Value(p, where + "/properties/" + name),
           required.count(name) != 0});
    }
    if (!extra_required.empty() && !extra)
      Refuse(where,
             "required names '" + Printable(extra_required[0], 40) + "', which is no property");
    std::string extra_value = extra ? Value(extra_schema, where + "/additionalProperties") : "";
    for (const std::string& name : extra_required)
      list.push_back({GbnfLiteral(Dump(Json(name))) + " \":\" ws " + extra_value, true});
    // after_i: what may follow a property, from property i on; first_i: the same with none before.
    std::string extra_key;
    if (extra) {
      // Other names than those of the properties, or a value could stand for a property and not match it.
      std::vector<std::string> names;
      for (const auto& [name, p] : properties.items()) names.push_back(name);
      for (const std::string& name : extra_required) names.push_back(name);
      extra_key = NotAnyOf(names);
    }
    const std::string extra_pair = extra ? Rule(extra_key + " \":\" ws " + extra_value) : "";
    std::string after = extra ? Rule("(\",\" ws " + extra_pair + ")*") : "";
    std::string first =
        extra ? Rule("(" + extra_pair + (after.empty() ? "" : " " + after) + ")?") : "";
    for (size_t i = list.size(); i-- > 0;) {
      const Property& p = list[i];
      const std::string pair = Rule(p.pair);
      const std::string tail = after.empty() ? "" : " " + after;
      const std::string with_comma = "\",\" ws " + pair + tail;
      const std::string alone = pair + tail;
      first = Rule(p.required ? alone : alone + " | " + (first.empty() ? "\"\"" : first));
      after = Rule(p.required ? with_comma : with_comma + " | " + (after.empty() ? "\"\"" : after));
    }
    return Rule(std::string("\"{\" ws ") + first + (first.empty() ? "" : " ") + "ws \"}\"");
  }

  // JSON strings that are none of these names: a tree of their characters, left anywhere.
  std::string NotAnyOf(const std::vector<std::string>& names) {
    if (names.empty()) return "string";
    struct Node {
      std::map<std::string, size_t> next;  // by character
      bool end = false;
    };
    std::vector<Node> tree(1);
    for (const std::string& name : names) {
      size_t at = 0;
      for (size_t i = 0; i < name.size();) {
        const size_t n = std::max<size_t>(1, Utf8SequenceLength(std::string_view(name).substr(i)));
        const std::string c = name.substr(i, n);
        i += n;
        if (tree[at].next.count(c) == 0) {
          tree[at].next[c] = tree.size();
          tree.emplace_back();
        }
        at = tree[at].next[c];
      }
      tree[at].end = true;
    }
    // Children have higher numbers than their parents: their rules come first.
    std::vector<std::string> rule(tree.size());
    for (size_t i = tree.size(); i-- > 0;) {
      const Node& node = tree[i];
      std::string others;
      std::string body;
      for (const auto& [c, child] : node.next) {
        const bool plain = c != "\"" && c != "\\" && static_cast<uint8_t>(c[0]) >= 0x20;
        if (!plain) continue;  // such names are never spelt by this rule, which has no escapes
        others += c == "]" || c == "^" || c == "-" || c == "[" ? "\\" + c : c;
        body += " | " + GbnfLiteral(c) + " " + rule[child];
      }
      body = "[^\"\\\\\\x00-\\x1F\\x7F" + others + "] [^\"\\\\\\x00-\\x1F\\x7F]* \"\\\"\"" + body;
      if (!node.end) body = "\"\\\"\" | " + body;
      rule[i] = Rule(body);
    }
    return Rule("\"\\\"\" " + rule[0]);
  }

  int Count(const Json& schema, const char* key, int otherwise, const std::string& where) {
    if (!schema.contains(key)) return otherwise;
    const Json& v = schema[key];
    if (!v.is_number() || v.get<double>() < 0 || v.get<double>() != std::floor(v.get<double>()))
      Refuse(where, std::string(key) + " takes a whole number from 0");
    if (v.get<double>() > kMaxSchemaRepeat) {
      if (std::string_view(key).starts_with("max"))
        return -1;  // longer than we let anything be; see below
      Refuse(where, std::string(key) + " is greater than " + std::to_string(kMaxSchemaRepeat));
    }
    return v.get<int>();
  }
  // A maximum beyond kMaxSchemaRepeat is kept by allowing kMaxSchemaRepeat.
  std::string Times(const Json& schema, const char* min_key, const char* max_key,
                    const std::string& where, int* min, int* max) {
    *min = Count(schema, min_key, 0, where);
    *max = schema.contains(max_key) ? Count(schema, max_key, -1, where) : -2;
    if (*max == -1) *max = kMaxSchemaRepeat;
    if (*max >= 0 && *max < *min)
      Refuse(where, std::string(min_key) + " is greater than " + max_key);
    if (*max == -2) return *min == 0 ? "*" : "{" + std::to_string(*min) + ",}";
    return "{" + std::to_string(*min) + "," + std::to_string(*max) + "}";
  }

  std::string Array(const Json& schema, const std::string& where) {
    int min, max;
    Times(schema, "minItems", "maxItems", where, &min, &max);
    std::vector<std::string> first;
    Json items = schema.contains("items") ? schema["items"] : Json(true);
    if (schema.contains("prefixItems") || items.is_array()) {
      const Json list = schema.contains("prefixItems") ? schema["prefixItems"] : items;
      if (!list.is_array()) Refuse(where, "prefixItems takes a list of schemas");
      for (size_t i = 0; i < list.size(); ++i)
        first.push_back(Value(list[i], where + "/prefixItems/" + std::to_string(i)));
      if (items.is_array()) items = true;
    }
    const bool more = !(items.is_boolean() && !items.get<bool>());
    const std::string item = more ? Value(items, where + "/items") : "";
    const int n_first = static_cast<int>(first.size());
    if (!more && min > n_first) Refuse(where, "minItems is greater than the number of prefixItems");
    if (max < 0 && !more) max = n_first;
    // The items behind the prefix; with a comma in front of each.
    std::string tail;
    if (more && (max < 0 || max > n_first)) {
      const int low = std::max(0, min - n_first);
      tail = "(\",\" ws " + item + ")" +
             (max < 0 ? (low == 0 ? "*" : "{" + std::to_string(low) + ",}")
                      : "{" + std::to_string(low) + "," + std::to_string(max - n_first) + "}");
    }
    if (first.empty()) {
      if (max == 0) return Rule("\"[\" ws \"]\"");
      const std::string times = max < 0 ? (min <= 1 ? "*" : "{" + std::to_string(min - 1) + ",}")
                                        : "{" + std::to_string(std::max(0, min - 1)) + "," +
                                              std::to_string(max - 1) + "}";
      const std::string body = item + " (\",\" ws " + item + ")" + times;
      return Rule("\"[\" ws " + (min == 0 ? "(" + body + ")?" : body) + " ws \"]\"");
    }
    std::string body = tail;
    for (int i = n_first; i-- > 0;) {
      if (max >= 0 && i >= max) {
        body.clear();
        continue;
      }
      body = (i > 0 ? "\",\" ws " : "") + first[static_cast<size_t>(i)] +
             (body.empty() ? "" : " " + body);
      if (i >= min) body = "(" + body + ")?";
      body = Rule(body);
    }
    return Rule("\"[\" ws " + (body.empty() ? "" : body + " ") + "ws \"]\"");
  }

  std::string String(const Json& schema, const std::string& where) {
    int min, max;
    const std::string times = Times(schema, "minLength", "maxLength", where, &min, &max);
    const bool bounded = times != "*";
    // A format and a pattern both hold, and so does the length.
    std::vector<PatternNode> patterns;
    if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) Refuse(where, "pattern takes a regular expression");
      patterns.push_back(ParsePattern(schema["pattern"], where, field_));
    }
    if (schema.contains("format") && schema["format"].is_string()) {
      if (const std::string format = FormatPattern(schema["format"]); !format.empty())
        patterns.push_back(ParsePattern(format, where, field_));
    }
    if (!patterns.empty()) {
      std::string texts;
      try {
        if (patterns.size() == 1 && !bounded) {
          texts = PatternRule(patterns[0]);
        } else {
          const RuleSink sink{[this] { return NewName(); },
                              [this](const std::string& name, const std::string& body) {
                                *rules_ += name + " ::= " + body + "\n";
                              }};
          texts = PatternRules(patterns, min, max == -2 ? -1 : max, sink);
        }
      } catch (const Error& e) {
        Refuse(where, e.what());
      }
      if (texts.empty())
        Refuse(where, "no text has the pattern, format and length that are asked for");
      return Rule("\"\\\"\" " + texts + " \"\\\"\"");
    }
    return bounded ? Rule("\"\\\"\" char" + times + " \"\\\"\"") : "string";
  }

  std::string Number(const Json& schema, const std::string& where, bool whole) {
    double low = -HUGE_VAL, high = HUGE_VAL;
    bool low_open = false, high_open = false;
    const auto bound = [&](const char* key, bool lower, bool open) {
      if (!schema.contains(key)) return;
      const Json& v = schema[key];
      if (v.is_boolean() && open) {  // draft 4: says that minimum itself is excluded
        if (v.get<bool>()) (lower ? low_open : high_open) = true;
        return;
      }
      if (!v.is_number()) Refuse(where, std::string(key) + " takes a number");
      const double x = v.get<double>();
      if (std::fabs(x) > 9e15) Refuse(where, std::string(key) + " is beyond 9e15");
      if (lower ? x > low || (x == low && open) : x < high || (x == high && open)) {
        (lower ? low : high) = x;
        (lower ? low_open : high_open) = open;
      }
    };
    bound("minimum", true, false);
    bound("maximum", false, false);
    bound("exclusiveMinimum", true, true);
    bound("exclusiveMaximum", false, true);
    const bool has_low = low != -HUGE_VAL, has_high = high != HUGE_VAL;
    if (!has_low && !has_high) return whole ? "integer" : "number";
    if (whole) {
      const int64_t a =
          has_low ? static_cast<int64_t>(low_open ? std::floor(low) + 1 : std::ceil(low)) : 0;
      const int64_t b =
          has_high ? static_cast<int64_t>(high_open ? std::ceil(high) - 1 : std::floor(high)) : 0;
      if (has_low && has_high && a > b)
        Refuse(where, "no integer lies between minimum and maximum");
      return Rule(IntegerRange(has_low ? &a : nullptr, has_high ? &b : nullptr));
    }
    // n.fraction with n from a to b - 1 lies within, and so do a and b themselves; bounds between whole numbers are narrowed.
    const int64_t a = has_low ? static_cast<int64_t>(std::ceil(low)) : 0,
                  b = has_high ? static_cast<int64_t>(std::floor(high)) : 0;
    const bool a_open = low_open && low == std::ceil(low),
               b_open = high_open && high == std::floor(high);
    if (has_low && has_high && (a > b || (a == b && (a_open || b_open)))) {
      Refuse(where, "minimum and maximum with no whole number between them are not supported");
    }
    std::string body;
    const auto add = [&](const std::string& s) { body += (body.empty() ? "" : " | ") + s; };
    const std::string fraction = " (\".\" [0-9]{1,15})?";
    // Not negative: whole part from max(a, 0) (with a itself only if it may be) to b - 1.
    if (!has_high || b > 0) {
      int64_t from = has_low ? std::max<int64_t>(a, 0) : 0;
      if (has_low && a >= 0 && a_open) {
        if (!has_high || a < b) add("\"" + std::to_string(a) + ".\" [0-9]{0,14} [1-9]");
        ++from;
      }
      const int64_t to = b - 1;
      if (!has_high)
        add("(" + IntegerRange(&from, nullptr) + ")" + fraction);
      else if (from <= to)
        add("(" + IntegerRange(&from, &to) + ")" + fraction);
    }
    if (has_high && b >= 0 && !b_open && (!has_low || b >= a))
      add("\"" + std::to_string(b) + "\" (\".\" \"0\"{1,2})?");
    // Negative: the same mirrored.
    if (!has_low || a < 0) {
      int64_t from = has_high ? std::max<int64_t>(-b, 0) : 0;
      if (has_high && b <= 0 && b_open) {
        if (!has_low || a < b) add("\"-" + std::to_string(-b) + ".\" [0-9]{0,14} [1-9]");
        ++from;
      }
      const int64_t to = -a - 1;
      if (!has_low)
        add("\"-\" (" + IntegerRange(&from, nullptr) + ")" + fraction);
      else if (from <= to)
        add("\"-\" (" + IntegerRange(&from, &to) + ")" + fraction);
    }
    if (has_low && a < 0 && !a_open) add("\"" + std::to_string(a) + "\" (\".\" \"0\"{1,2})?");
    return Rule(body);
  }

  const Json& root_;
  const std::string field_, prefix_;
  std::string* rules_;
  const SchemaMode mode_;
  std::map<std::string, std::string> by_body_, refs_;
  int n_rules_ = 0, n_merges_ = 0, ref_chain_ = 0, depth_ = 0, overlap_steps_ = kMaxOverlapSteps;
};

}  // namespace

std::string JsonRules() {
  return R"(value ::= object | array | string | number | boolean | null
object ::= "{" ws (pair ("," ws pair)*)? ws "}"
pair ::= string ":" ws value
array ::= "[" ws (value ("," ws value)*)? ws "]"
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-cA-CefEF] [0-9a-fA-F]{3} | "u" [dD] [0-7] [0-9a-fA-F]{2})
number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
boolean ::= "true" | "false"
null ::= "null"
ws ::= (" " | "\n" [ ]{0,20})?
)";
}

std::string SchemaRules(const Json& schema, const std::string& field, const std::string& prefix,
                        std::string* rules, const SchemaMode& mode, const Json* root) {
  Builder builder(root != nullptr ? *root : schema, field, prefix, rules, mode);
  return builder.Value(schema, "");
}

std::string SchemaGrammar(const Json& schema, const std::string& field, const SchemaMode& mode) {
  std::string rules;
  const std::string root = SchemaRules(schema, field, "s", &rules, mode);
  return "root ::= " + root + "\n" + rules + JsonRules();
}

std::string AnyObjectGrammar() { return "root ::= object\n" + JsonRules(); }

}  // namespace lutra::server
