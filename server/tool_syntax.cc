#include "server/tool_syntax.h"

#include <algorithm>
#include <optional>
#include <random>

#include "server/api_error.h"
#include "server/gbnf_text.h"
#include "server/schema_grammar.h"
#include "server/tool_syntax_text.h"

namespace lutra::server {
namespace {

using Status = CallReader::Status;

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// White space as the grammars' rule `ws` writes it.
size_t SkipGrammarSpace(std::string_view s, size_t at) {
  constexpr size_t kMostIndent = 20;
  if (at < s.size() && s[at] == ' ') return at + 1;
  if (at >= s.size() || s[at] != '\n') return at;
  const size_t end = std::min(s.size(), at + 1 + kMostIndent);
  for (++at; at < end && s[at] == ' ';) ++at;
  return at;
}

// A walk over JSON text that finds where objects and lists end.
struct JsonScan {
  size_t at;
  int depth = 0;
  bool text = false, escaped = false;

  // To behind the bracket that brings the depth to `until`; false if the text ends before.
  bool To(std::string_view s, int until) {
    while (at < s.size()) {
      const char c = s[at++];
      if (escaped) {
        escaped = false;
      } else if (text) {
        if (c == '\\') escaped = true;
        if (c == '"') text = false;
      } else if (c == '"') {
        text = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if ((c == '}' || c == ']') && --depth <= until) {
        return true;
      }
    }
    return false;
  }
};

// {"name": ..., "arguments" or "parameters": ...} of a known tool, perhaps inside {"function": ...}.
bool ReadCall(const Json& value, const Tools& tools, CallPiece* call) {
  if (!value.is_object()) return false;
  const Json& object =
      value.contains("function") && value["function"].is_object() ? value["function"] : value;
  const auto name = object.find("name");
  if (name == object.end() || !name->is_string() ||
      FindTool(tools, name->get_ref<const std::string&>()) == nullptr)
    return false;
  call->name = *name;
  call->arguments = "{}";
  for (const char* key : {"arguments", "parameters"}) {
    const auto it = object.find(key);
    if (it == object.end()) continue;
    // Some write the arguments as a text that holds JSON.
    const Json inner =
        it->is_string() ? Json::parse(it->get_ref<const std::string&>(), nullptr, false) : *it;
    if (!inner.is_object()) return false;
    call->arguments = Dump(inner);
    break;
  }
  return true;
}

// The object of one call. As the grammar writes it, name and arguments are known while it is read; otherwise at its end.
class ObjectReader {
 public:
  // The object begins at `at`; `exact`: so far all is as the grammar writes it.
  ObjectReader(const Tools& tools, const char* key, size_t at, bool exact)
      : tools_(tools),
        key_(key),
        begin_(at),
        scan_{at},
        stage_(exact ? Stage::kHead : Stage::kWhole) {}

  Status Read(std::string_view text, std::vector<CallPiece>* pieces) {
    if (stage_ == Stage::kHead && !ReadHead(text, pieces)) return Status::kMore;
    if (stage_ == Stage::kArguments) {
      if (scan_.To(text, 1)) stage_ = Stage::kTail;
      pieces->push_back({"", std::string(text.substr(sent_, scan_.at - sent_))});
      sent_ = scan_.at;
    }
    if (!scan_.To(text, 0)) return Status::kMore;
    Json value;
    CallPiece call;
    if (!ParseText(text.substr(begin_, scan_.at - begin_), &value) ||
        !ReadCall(value, tools_, &call))
      return Status::kNoCall;
    if (stage_ == Stage::kWhole) pieces->push_back(std::move(call));
    return Status::kDone;
  }
  size_t end() const { return scan_.at; }

 private:
  enum class Stage { kHead, kArguments, kTail, kWhole };

  // {"name": NAME, KEY: and the arguments' first brace; false if that is not decided yet.
  bool ReadHead(std::string_view text, std::vector<CallPiece>* pieces) {
    size_t at = begin_;
    bool open = false;  // the text ends where something is still to come
    const auto take = [&](const std::string& literal) {
      const std::string_view there = text.substr(at, literal.size());
      if (there != literal) {
        open = std::string_view(literal).starts_with(there);
        return false;
      }
      at = SkipGrammarSpace(text, at + literal.size());
      return true;
    };
    const auto head = [&] {
      if (!take("{") || !take("\"name\":")) return false;
      const Tool* tool = nullptr;
      bool may = false;
      for (const Tool& t : tools_) {
        const bool found = take(Dump(Json(t.name)));
        may = may || open;
        if (!found) continue;
        tool = &t;
        break;
      }
      open = may;
      if (tool == nullptr || !take(",") || !take(std::string("\"") + key_ + "\":")) return false;
      if (at >= text.size() || text[at] != '{') {
        open = at >= text.size();
        return false;
      }
      pieces->push_back({tool->name, ""});
      return true;
    };
    if (head()) {
      stage_ = Stage::kArguments;
      sent_ = at;
      return true;
    }
    if (!open) stage_ = Stage::kWhole;
    return !open;
  }

  const Tools& tools_;
  const char* key_;
  const size_t begin_;
  JsonScan scan_;
  Stage stage_;
  size_t sent_ = 0;  // where the arguments go on that were not given out
};

std::string Quoted(const std::string& s) { return GbnfLiteral(Dump(Json(s))); }

// The rule of each tool's arguments; rules are appended to *rules.
std::vector<std::string> ArgumentRules(const Tools& tools, std::string* rules,
                                       std::vector<std::string>* relaxed) {
  std::vector<std::string> names;
  for (size_t i = 0; i < tools.size(); ++i) {
    std::string own, rule;
    try {
      std::vector<std::string> places;
      rule = SchemaRules(tools[i].parameters, "tools", "t" + std::to_string(i) + "x", &own,
                         {tools[i].strict, &places});
      if (!places.empty()) relaxed->push_back(tools[i].name);
    } catch (const ApiError&) {
      if (tools[i].strict) throw;
      relaxed->push_back(tools[i].name);
      own.clear();
      rule = "object";
    }
    *rules += own;
    names.push_back(rule == "value" ? "object" : rule);
  }
  return names;
}

// The rule `call`: an object as ObjectReader reads it.
std::string ObjectRules(const Tools& tools, const std::string& key,
                        std::vector<std::string>* relaxed) {
  std::string rules, call;
  const std::vector<std::string> arguments = ArgumentRules(tools, &rules, relaxed);
  for (size_t i = 0; i < tools.size(); ++i) {
    call += (i > 0 ? " | " : "") + std::string("\"{\" ws \"\\\"name\\\":\" ws ") +
            Quoted(tools[i].name) + " ws \",\" ws \"\\\"" + key + "\\\":\" ws " + arguments[i] +
            " ws \"}\"";
  }
  return "call ::= " + call + "\n" + rules;
}

// <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen2.5, Qwen3 and many others.
class Tagged final : public ToolSyntax {
 public:
  const char* name() const override { return "hermes"; }
  std::span<const std::string_view> triggers() const override {
    static constexpr std::string_view kTriggers[] = {kOpen};
    return kTriggers;
  }
  std::unique_ptr<CallReader> NewReader(const Tools& tools) const override {
    return std::make_unique<Reader>(tools);
  }
  std::string Grammar(const Tools& tools, bool parallel,
                      std::vector<std::string>* relaxed) const override {
    return std::string("root ::= one") + (parallel ? " (\"\\n\" one)*" : "") +
           "\none ::= \"<tool_call>\\n\" call \"\\n</tool_call>\"\n" +
           ObjectRules(tools, "arguments", relaxed);
  }

 private:
  static constexpr std::string_view kOpen = "<tool_call>";
  class Reader final : public CallReader {
   public:
    explicit Reader(const Tools& tools) : tools_(tools) {}
    Status Read(std::string_view text, bool last, std::vector<CallPiece>* pieces,
                size_t* used) override {
      if (!object_) {
        const size_t at = SkipSpace(text, kOpen.size());
        if (at == text.size()) return More(last);
        if (text[at] != '{') return Status::kNoCall;
        object_.emplace(tools_, "arguments", at,
                        text.substr(kOpen.size(), at - kOpen.size()) == "\n");
      }
      if (!read_) {
        const Status status = object_->Read(text, pieces);
        if (status == Status::kMore) return More(last);
        if (status == Status::kNoCall) return status;
        read_ = true;
      }
      return ReadEndTag(text, object_->end(), "</tool_call>", last, used);
    }

   private:
    const Tools& tools_;
    std::optional<ObjectReader> object_;
    bool read_ = false;
  };
};

// {"name": ..., "parameters": {...}}, perhaps several with ';' between, perhaps behind <|python_tag|>: Llama 3.x.
class Bare final : public ToolSyntax {
 public:
  const char* name() const override { return "llama3"; }
  std::span<const std::string_view> triggers() const override {
    static constexpr std::string_view kTriggers[] = {kTag, "{"};
    return kTriggers;
  }
  bool IsCall(std::string_view text) const override { return text.starts_with(kTag); }
  std::unique_ptr<CallReader> NewReader(const Tools& tools) const override {
    return std::make_unique<Reader>(tools);
  }
  std::string Grammar(const Tools& tools, bool parallel,
                      std::vector<std::string>* relaxed) const override {
    return std::string("root ::= \"<|python_tag|>\"? call") +
           (parallel ? " (\";\" ws call)*" : "") + "\n" + ObjectRules(tools, "parameters", relaxed);
  }

 private:
  static constexpr std::string_view kTag = "<|python_tag|>";
  class Reader final : public CallReader {
   public:
    explicit Reader(const Tools& tools) : tools_(tools) {}
    Status Read(std::string_view text, bool last, std::vector<CallPiece>* pieces,
                size_t* used) override {
      if (at_ == 0 && text.starts_with(kTag)) at_ = kTag.size();
      for (;;) {
        if (!object_) {
          size_t at = SkipSpace(text, at_);
          bool exact = n_ == 0 && at == at_;
          if (n_ > 0 && at < text.size() && text[at] == ';') {
            exact = at == at_ && SkipGrammarSpace(text, at + 1) == SkipSpace(text, at + 1);
            at = SkipSpace(text, at + 1);
          }
          if (at == text.size()) {
            // Only at the end is it known that nothing follows that would make this plain text.
            if (!last || n_ == 0) return More(last);
            *used = at_;
            return Status::kDone;
          }
          if (text[at] != '{') return Status::kNoCall;
          object_.emplace(tools_, "parameters", at, exact);
        }
        const Status status = object_->Read(text, pieces);
        if (status == Status::kMore) return More(last);
        if (status == Status::kNoCall) return status;
        at_ = object_->end();
        object_.reset();
        ++n_;
      }
    }

   private:
    const Tools& tools_;
    std::optional<ObjectReader> object_;
    size_t at_ = 0, n_ = 0;  // behind the last call; calls
  };
};

// [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...], and the newer [TOOL_CALLS]name[ARGS]{...}, with [CALL_ID] in between or not:
// Mistral. All are read; the grammar is that of the template's form.
class Mistral final : public ToolSyntax {
 public:
  enum class Form { kList, kArgs, kIdArgs };
  Mistral(const char* name, Form form) : name_(name), form_(form) {}

  const char* name() const override { return name_; }
  std::span<const std::string_view> triggers() const override {
    static constexpr std::string_view kTriggers[] = {kOpen};
    return kTriggers;
  }
  std::unique_ptr<CallReader> NewReader(const Tools& tools) const override {
    return std::make_unique<Reader>(tools);
  }
  std::string Grammar(const Tools& tools, bool parallel,
                      std::vector<std::string>* relaxed) const override {
    if (form_ == Form::kList) {
      return std::string("root ::= \"[TOOL_CALLS][\" call") + (parallel ? " (\", \" call)*" : "") +
             " \"]\"\n" + ObjectRules(tools, "arguments", relaxed);
    }
    std::string rules, call;
    const std::vector<std::string> arguments = ArgumentRules(tools, &rules, relaxed);
    const std::string between =
        form_ == Form::kArgs ? "\"[ARGS]\" " : "\"[CALL_ID]\" [a-zA-Z0-9]{9} \"[ARGS]\" ";
    for (size_t i = 0; i < tools.size(); ++i)
      call += (i > 0 ? " | " : "") + GbnfLiteral(tools[i].name) + " " + between + arguments[i];
    return std::string("root ::= one") + (parallel ? " one*" : "") +
           "\none ::= \"[TOOL_CALLS]\" (" + call + ")\n" + rules;
  }

 private:
  static constexpr std::string_view kOpen = "[TOOL_CALLS]";
  class Reader final : public CallReader {
   public:
    explicit Reader(const Tools& tools) : tools_(tools) {}
    Status Read(std::string_view text, bool last, std::vector<CallPiece>* pieces,
                size_t* used) override {
      if (stage_ == Stage::kOpen) {
        const size_t at = SkipSpace(text, kOpen.size());
        if (at == text.size()) return More(last);
        exact_ = at == kOpen.size();
        at_ = at;
        stage_ = text[at] == '[' ? Stage::kList : text[at] == '{' ? Stage::kOne : Stage::kName;
        if (stage_ == Stage::kList) ++at_;
      }
      if (stage_ == Stage::kName) return ReadNamed(text, last, pieces, used);
      for (;;) {
        if (!object_) {
          const size_t from = at_;
          size_t at = SkipSpace(text, at_);
          if (n_ > 0 && at < text.size() && text[at] == ',') at = SkipSpace(text, at + 1);
          if (at == text.size()) return More(last);
          if (n_ > 0 && text[at] == ']') {
            *used = at + 1;
            return Status::kDone;
          }
          if (text[at] != '{') return Status::kNoCall;
          const bool listed =
              stage_ == Stage::kList && text.substr(from, at - from) == (n_ == 0 ? "" : ", ");
          object_.emplace(tools_, "arguments", at, exact_ && listed);
        }
        const Status status = object_->Read(text, pieces);
        if (status == Status::kMore) return More(last);
        if (status == Status::kNoCall) return status;
        at_ = object_->end();
        object_.reset();
        ++n_;
        if (stage_ == Stage::kOne) {
          *used = at_;
          return Status::kDone;
        }
      }
    }

   private:
    enum class Stage { kOpen, kList, kOne, kName };

    Status ReadNamed(std::string_view text, bool last, std::vector<CallPiece>* pieces,
                     size_t* used) {
      if (!scan_) {
        constexpr size_t kMostName = 512;
        const size_t brace = text.find('{', at_);
        if (brace == std::string_view::npos)
          return text.size() - at_ > kMostName ? Status::kNoCall : More(last);
        std::string_view name = text.substr(at_, brace - at_);
        for (const std::string_view mark : {"[ARGS]", "[CALL_ID]"}) {
          if (const size_t at = name.find(mark); at != std::string_view::npos)
            name = name.substr(0, at);
        }
        while (!name.empty() && IsSpace(name.back())) name.remove_suffix(1);
        const Tool* tool = FindTool(tools_, name);
        if (tool == nullptr) return Status::kNoCall;
        exact_ = exact_ && text.substr(0, brace).ends_with("[ARGS]");
        name_ = tool->name;
        at_ = brace;
        scan_.emplace(JsonScan{brace});
        if (exact_) pieces->push_back({name_, ""});
      }
      const size_t before = scan_->at;
      const bool whole = scan_->To(text, 0);
      if (exact_) pieces->push_back({"", std::string(text.substr(before, scan_->at - before))});
      if (!whole) return More(last);
      Json value;
      const std::string_view arguments = text.substr(at_, scan_->at - at_);
      if (!ParseText(arguments, &value)) return Status::kNoCall;
      if (!exact_) pieces->push_back({name_, Dump(value)});
      *used = scan_->at;
      return Status::kDone;
    }

    const Tools& tools_;
    Stage stage_ = Stage::kOpen;
    std::optional<ObjectReader> object_;
    std::optional<JsonScan> scan_;
    std::string name_;
    size_t at_ = 0, n_ = 0;
    bool exact_ = false;
  };

  const char* name_;
  const Form form_;
};

const Tagged kTagged;
const Bare kBare;
const Mistral kMistral("mistral", Mistral::Form::kList),
    kMistralArgs("mistral_args", Mistral::Form::kArgs),
    kMistralIdArgs("mistral_id_args", Mistral::Form::kIdArgs);

// A template with all of these marks tells its model to use the syntax; the first row that fits counts.
struct Row {
  const ToolSyntax* syntax;
  std::string_view marks[2];
};
const Row kRows[] = {
    {&XmlCalls(), {"<function=", "<parameter="}},
    {&kTagged, {"<tool_call>"}},
    {&kMistralIdArgs, {"[TOOL_CALLS]", "[CALL_ID]"}},
    {&kMistralArgs, {"[TOOL_CALLS]", "[ARGS]"}},
    {&kMistral, {"[TOOL_CALLS]"}},
    {&kBare, {"<|python_tag|>"}},
    {&kBare, {"<|start_header_id|>"}},
};

}  // namespace

size_t SkipSpace(std::string_view s, size_t at) {
  while (at < s.size() && IsSpace(s[at])) ++at;
  return at;
}

const Tool* FindTool(const Tools& tools, std::string_view name) {
  const auto it =
      std::find_if(tools.begin(), tools.end(), [&](const Tool& t) { return t.name == name; });
  return it == tools.end() ? nullptr : &*it;
}

bool ParseText(std::string_view text, Json* out) {
  try {
    *out = ParseJson(text);
    return true;
  } catch (const ApiError&) {
    return false;
  }
}

Status ReadEndTag(std::string_view text, size_t at, std::string_view tag, bool last, size_t* used) {
  at = SkipSpace(text, at);
  const std::string_view rest = text.substr(at);
  if (rest.starts_with(tag)) {
    *used = at + tag.size();
    return Status::kDone;
  }
  if (!tag.starts_with(rest)) return Status::kNoCall;
  *used = text.size();
  return last ? Status::kDone : Status::kMore;
}

std::span<const ToolSyntax* const> AllToolSyntaxes() {
  static const ToolSyntax* const kAll[] = {&kTagged,  &XmlCalls(),   &kBare,
                                           &kMistral, &kMistralArgs, &kMistralIdArgs};
  return kAll;
}

const ToolSyntax* SyntaxOf(std::string_view source) {
  for (const Row& row : kRows) {
    if (std::all_of(std::begin(row.marks), std::end(row.marks),
                    [&](std::string_view m) { return source.find(m) != std::string_view::npos; })) {
      return row.syntax;
    }
  }
  return &kTagged;
}

std::string NewCallId() {
  static constexpr char kLetters[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string id = "call_";
  for (int i = 0; i < 24; ++i) id += kLetters[random() % (sizeof(kLetters) - 1)];
  return id;
}

}  // namespace lutra::server
