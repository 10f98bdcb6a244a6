// Calls as elements with a value each. Values are raw text: strings without quotes, others as JSON, which is which by the tool's schema.
#include <algorithm>
#include <set>

#include "server/api_error.h"
#include "server/gbnf_text.h"
#include "server/schema_grammar.h"
#include "server/tool_syntax_text.h"

namespace lutra::server {
namespace {

using Status = CallReader::Status;

constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>",
                           kFunction = "<function=", kEnd = "</function>",
                           kParameter = "<parameter=", kValueEnd = "</parameter>";

// What stands for a value: text as it is, JSON, or what it looks like.
enum class Kind { kText, kJson, kEither };

const Json& Member(const Json& object, const char* name) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto it = object.find(name);
  return it == object.end() ? kNull : *it;
}

// The schema behind references.
const Json& Resolve(const Json* schema, const Json& root) {
  for (int i = 0; i < 16 && Member(*schema, "$ref").is_string(); ++i) {
    const std::string& ref = Member(*schema, "$ref").get_ref<const std::string&>();
    try {
      if (!ref.starts_with('#')) break;
      schema = &root.at(Json::json_pointer(ref.substr(1)));
    } catch (const Json::exception&) {
      break;
    }
  }
  return *schema;
}

bool HasType(const Json& v, const Json& type) {
  return (type == "object" && v.is_object()) || (type == "array" && v.is_array()) ||
         (type == "string" && v.is_string()) || (type == "number" && v.is_number()) ||
         (type == "integer" && v.is_number_integer()) || (type == "boolean" && v.is_boolean()) ||
         (type == "null" && v.is_null());
}

bool SameType(const Json& a, const Json& b) {
  return a.type() == b.type() || (a.is_number() && b.is_number());
}

// Whether a schema allows values of this one's type; enumerations by the types of their values.
bool AllowsType(const Json& schema, const Json& root, const Json& value, int depth = 0) {
  const Json& s = Resolve(&schema, root);
  const Json& type = Member(s, "type");
  if (type.is_string()) return HasType(value, type);
  if (type.is_array())
    return std::any_of(type.begin(), type.end(), [&](const Json& t) { return HasType(value, t); });
  if (const Json& all = Member(s, "enum"); all.is_array()) {
    return std::any_of(all.begin(), all.end(), [&](const Json& v) { return SameType(v, value); });
  }
  if (s.is_object() && s.contains("const")) return SameType(s["const"], value);
  for (const char* key : {"anyOf", "oneOf"}) {
    const Json& list = Member(s, key);
    if (!list.is_array() || depth > 8) continue;
    return std::any_of(list.begin(), list.end(),
                       [&](const Json& one) { return AllowsType(one, root, value, depth + 1); });
  }
  return true;
}

Kind KindOf(const Json& schema, const Json& root) {
  static const Json kOthers[] = {Json::object(), Json::array(), 1, 1.5, true, nullptr};
  if (!AllowsType(schema, root, "")) return Kind::kJson;
  const bool others = std::any_of(std::begin(kOthers), std::end(kOthers),
                                  [&](const Json& v) { return AllowsType(schema, root, v); });
  return others ? Kind::kEither : Kind::kText;
}

// As the inside of a JSON string.
std::string Escaped(std::string_view text) {
  const std::string quoted = Dump(Json(std::string(text)));
  return quoted.substr(1, quoted.size() - 2);
}

// The longest end of `text` that may be the beginning of a value's end.
size_t PartialEnd(std::string_view text) {
  static constexpr std::string_view kEnds[] = {"\n</parameter>", "</parameter>"};
  size_t most = 0;
  for (const std::string_view tag : kEnds) {
    for (size_t n = std::min(text.size(), tag.size() - 1); n > most; --n) {
      if (text.substr(text.size() - n) == tag.substr(0, n)) most = n;
    }
  }
  return most;
}

class Reader final : public CallReader {
 public:
  explicit Reader(const Tools& tools) : tools_(tools) {}

  Status Read(std::string_view text, bool last, std::vector<CallPiece>* pieces,
              size_t* used) override {
    for (;;) {
      switch (stage_) {
        case Stage::kBegin: {
          at_ = text.starts_with(kOpen) ? SkipSpace(text, kOpen.size()) : 0;
          const Status status = Expect(text, kFunction, last);
          if (status != Status::kDone) return status;
          exact_ = at_ == kFunction.size() || text.substr(0, at_) == "<tool_call>\n<function=";
          stage_ = Stage::kName;
          break;
        }
        case Stage::kName: {
          std::string_view name;
          const Status status = NameUpTo(text, last, &name);
          if (status != Status::kDone) return status;
          tool_ = FindTool(tools_, name);
          if (tool_ == nullptr) return Status::kNoCall;
          Give({tool_->name, "{"}, pieces);
          stage_ = Stage::kNext;
          break;
        }
        case Stage::kNext: {
          at_ = SkipSpace(text, at_);
          Status status = Expect(text, kParameter, last);
          if (status == Status::kDone) {
            stage_ = Stage::kKey;
            break;
          }
          const Status end = Expect(text, kEnd, last);
          if (end == Status::kDone) {
            Give({"", "}"}, pieces);
            stage_ = Stage::kAfter;
            break;
          }
          if (status == Status::kNoCall) status = end;
          return status;
        }
        case Stage::kKey: {
          std::string_view key;
          const Status status = NameUpTo(text, last, &key);
          if (status != Status::kDone) return status;
          if (at_ == text.size() && !last) {  // a line's end may follow, which is not the value's
            at_ -= key.size() + 1;
            return Status::kMore;
          }
          if (at_ < text.size() && text[at_] == '\n') ++at_;
          if (!keys_.insert(std::string(key)).second) return Status::kNoCall;
          const Json& properties =
              Member(Resolve(&tool_->parameters, tool_->parameters), "properties");
          schema_ = &Member(properties, std::string(key).c_str());
          kind_ = KindOf(*schema_, tool_->parameters);
          Give({"", (keys_.size() > 1 ? ", " : "") + Dump(Json(std::string(key))) + ": " +
                        (kind_ == Kind::kText ? "\"" : "")},
               pieces);
          stage_ = Stage::kValue;
          looked_ = at_;
          break;
        }
        case Stage::kValue: {
          const size_t end = text.find(kValueEnd, looked_);
          const bool whole = end != std::string_view::npos;
          size_t stop = whole ? end : text.size() - PartialEnd(text.substr(at_));
          if (whole && stop > at_ && text[stop - 1] == '\n') --stop;
          if (kind_ == Kind::kText) {
            if (stop > at_) Give({"", Escaped(text.substr(at_, stop - at_))}, pieces);
            at_ = std::max(at_, stop);
          }
          if (!whole) {
            looked_ = std::max(at_, text.size() - std::min(text.size(), kValueEnd.size()));
            return More(last);
          }
          Give({"", kind_ == Kind::kText ? "\"" : Value(text.substr(at_, stop - at_))}, pieces);
          at_ = end + kValueEnd.size();
          stage_ = Stage::kNext;
          break;
        }
        case Stage::kAfter: {
          pieces->insert(pieces->end(), held_.begin(), held_.end());
          held_.clear();
          return ReadEndTag(text, at_, kClose, last, used);
        }
      }
    }
  }

 private:
  enum class Stage { kBegin, kName, kNext, kKey, kValue, kAfter };

  void Give(CallPiece piece, std::vector<CallPiece>* pieces) {
    (exact_ ? pieces : &held_)->push_back(std::move(piece));
  }

  Status Expect(std::string_view text, std::string_view tag, bool last) {
    const std::string_view rest = text.substr(at_);
    if (rest.starts_with(tag)) {
      at_ += tag.size();
      return Status::kDone;
    }
    return tag.starts_with(rest) ? More(last) : Status::kNoCall;
  }

  // What stands before the next '>'.
  Status NameUpTo(std::string_view text, bool last, std::string_view* name) {
    constexpr size_t kMostName = 512;
    const size_t close = text.find('>', at_);
    if (close == std::string_view::npos)
      return text.size() - at_ > kMostName ? Status::kNoCall : More(last);
    *name = text.substr(at_, close - at_);
    at_ = close + 1;
    return Status::kDone;
  }

  // A value that is not just text: JSON where it is some that the schema allows.
  std::string Value(std::string_view text) const {
    Json value;
    if (ParseText(text, &value) &&
        (kind_ == Kind::kJson ||
         (!value.is_string() && AllowsType(*schema_, tool_->parameters, value))))
      return Dump(value);
    return Dump(Json(std::string(text)));
  }

  const Tools& tools_;
  Stage stage_ = Stage::kBegin;
  size_t at_ = 0, looked_ = 0;  // read up to here; the value's end was looked for up to here
  bool exact_ = false;
  const Tool* tool_ = nullptr;
  const Json* schema_ = nullptr;  // of the value
  Kind kind_ = Kind::kText;
  std::set<std::string> keys_;
  std::vector<CallPiece> held_;  // until the end is seen
};

// Rules name0, name1, ...: any text up to the first `tag`, and that.
std::string UpTo(const std::string& name, std::string_view tag) {
  std::string rules;
  for (size_t k = 0; k < tag.size(); ++k) {
    std::string body, others;
    for (const char c : std::set<char>(tag.begin(), tag.end())) {
      // The longest beginning of the tag that ends what was read.
      const std::string read = std::string(tag.substr(0, k)) + c;
      size_t next = std::min(read.size(), tag.size());
      while (next > 0 && read.substr(read.size() - next) != tag.substr(0, next)) --next;
      if (next == 0) continue;
      others += c;
      body += " | " + GbnfLiteral(std::string(1, c)) +
              (next < tag.size() ? " " + name + std::to_string(next) : "");
    }
    rules += name + std::to_string(k) + " ::= [^" + others + "] " + name + "0" + body + "\n";
  }
  return rules;
}

class Xml final : public ToolSyntax {
 public:
  const char* name() const override { return "xml"; }
  std::span<const std::string_view> triggers() const override {
    static constexpr std::string_view kTriggers[] = {kOpen,
                                                     kFunction};  // some leave the first away
    return kTriggers;
  }
  std::unique_ptr<CallReader> NewReader(const Tools& tools) const override {
    return std::make_unique<Reader>(tools);
  }

  std::string Grammar(const Tools& tools, bool parallel,
                      std::vector<std::string>* relaxed) const override {
    std::string rules = UpTo("raw", kValueEnd), call;
    for (size_t i = 0; i < tools.size(); ++i) {
      call += (i > 0 ? " | " : "") + GbnfLiteral(tools[i].name + ">\n") +
              Parameters(tools[i], "t" + std::to_string(i) + "p", &rules, relaxed);
    }
    return std::string("root ::= one") + (parallel ? " (\"\\n\" one)*" : "") +
           "\none ::= \"<tool_call>\\n\"? \"<function=\" call \"</function>\\n</tool_call>\"\ncall "
           "::= " +
           call + "\n" + rules;
  }

 private:
  // In the schema's order; of those that are required all.
  static std::string Parameters(const Tool& tool, const std::string& prefix, std::string* rules,
                                std::vector<std::string>* relaxed) {
    const Json& schema = Resolve(&tool.parameters, tool.parameters);
    const Json& properties = Member(schema, "properties");
    if (!properties.is_object() || properties.empty())
      return " (\"<parameter=\" [^<>\\n]{1,200} \">\\n\" raw0 \"\\n\")*";
    const Json& required = Member(schema, "required");
    std::string body;
    size_t i = 0;
    for (const auto& [name, p] : properties.items()) {
      const bool must = required.is_array() &&
                        std::find(required.begin(), required.end(), name) != required.end();
      const std::string one =
          GbnfLiteral("<parameter=" + name + ">\n") + " " +
          ValueRule(tool, p, prefix + std::to_string(i++) + "x", rules, relaxed);
      body += must ? " " + one : " (" + one + ")?";
    }
    return body;
  }

  // A value, its end tag and the line's end.
  static std::string ValueRule(const Tool& tool, const Json& schema, const std::string& prefix,
                               std::string* rules, std::vector<std::string>* relaxed) {
    const Kind kind = KindOf(schema, tool.parameters);
    const std::string end = " \"\\n</parameter>\\n\"";
    if (kind == Kind::kJson) {
      const auto note = [&] {
        if (relaxed->empty() || relaxed->back() != tool.name) relaxed->push_back(tool.name);
      };
      std::string own;
      try {
        std::vector<std::string> places;
        const std::string rule =
            SchemaRules(schema, "tools", prefix, &own, {tool.strict, &places}, &tool.parameters);
        if (!places.empty()) note();
        *rules += own;
        return rule + end;
      } catch (const ApiError&) {
        if (tool.strict) throw;
        note();
        return "value" + end;
      }
    }
    const Json& s = Resolve(&schema, tool.parameters);
    const Json values = Member(s, "enum").is_array()           ? Member(s, "enum")
                        : s.is_object() && s.contains("const") ? Json::array({s["const"]})
                                                               : Json::array();
    std::string choice;
    for (const Json& v : values) {
      if (!v.is_string()) return "raw0 \"\\n\"";
      choice += (choice.empty() ? "" : " | ") + GbnfLiteral(v.get<std::string>());
    }
    return choice.empty() ? "raw0 \"\\n\"" : "(" + choice + ")" + end;
  }
};

}  // namespace

const ToolSyntax& XmlCalls() {
  static const Xml syntax;
  return syntax;
}

}  // namespace lutra::server
