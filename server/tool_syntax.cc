#include "server/tool_syntax.h"

#include <algorithm>
#include <random>

#include "server/api_error.h"
#include "server/schema_grammar.h"

namespace lutra::server {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

size_t SkipSpace(std::string_view s, size_t at) {
  while (at < s.size() && IsSpace(s[at])) ++at;
  return at;
}

// End of the JSON value (object or list) that begins at `at`; npos if it is not complete.
size_t JsonEnd(std::string_view s, size_t at) {
  int depth = 0;
  bool text = false;
  for (size_t i = at; i < s.size(); ++i) {
    const char c = s[i];
    if (text) {
      if (c == '\\') ++i;
      if (c == '"') text = false;
    } else if (c == '"') {
      text = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (--depth == 0) return i + 1;
    }
  }
  return std::string_view::npos;
}

// {"name": ..., "arguments" or "parameters": ...} of a known tool, perhaps inside {"function": ...}.
bool ReadCall(const Json& value, const std::vector<std::string>& names, ParsedCall* call) {
  if (!value.is_object()) return false;
  const Json& object = value.contains("function") && value["function"].is_object() ? value["function"] : value;
  const auto name = object.find("name");
  if (name == object.end() || !name->is_string()) return false;
  if (!names.empty() && std::find(names.begin(), names.end(), name->get_ref<const std::string&>()) == names.end()) return false;
  call->name = *name;
  for (const char* key : {"arguments", "parameters"}) {
    const auto it = object.find(key);
    if (it == object.end()) continue;
    if (it->is_string()) {
      // Some write the arguments as a text that holds JSON.
      const Json inner = Json::parse(it->get_ref<const std::string&>(), nullptr, false);
      if (!inner.is_object()) return false;
      call->arguments = Dump(inner);
    } else if (it->is_object()) {
      call->arguments = Dump(*it);
    } else {
      return false;
    }
    return true;
  }
  call->arguments = "{}";
  return true;
}

bool ParseText(std::string_view text, Json* out) {
  try {
    *out = ParseJson(text);
    return true;
  } catch (const ApiError&) {
    return false;
  }
}

std::string Quoted(const std::string& s) { return GbnfLiteral(Dump(Json(s))); }

std::string Alternatives(const std::vector<std::pair<std::string, std::string>>& tools, const std::string& key, const char* rule) {
  std::string out = std::string(rule) + " ::= ";
  for (size_t i = 0; i < tools.size(); ++i) {
    out += (i > 0 ? " | " : "") + std::string("\"{\" ws \"\\\"name\\\":\" ws ") + Quoted(tools[i].first) + " \",\" ws \"\\\"" + key +
           "\\\":\" ws " + tools[i].second + " ws \"}\"";
  }
  return out + "\n";
}

// <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen2.5, Qwen3 and many others.
class TaggedJson final : public ToolSyntax {
 public:
  const char* name() const override { return "hermes"; }
  std::vector<std::string> triggers() const override { return {"<tool_call>"}; }
  std::optional<size_t> Parse(std::string_view text, const std::vector<std::string>& names, bool last,
                              std::vector<ParsedCall>* calls) const override {
    constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>";
    size_t at = SkipSpace(text, kOpen.size());
    if (at == text.size()) return last ? std::nullopt : std::optional<size_t>(0);
    if (text[at] != '{') return std::nullopt;
    const size_t end = JsonEnd(text, at);
    if (end == std::string_view::npos) return last ? std::nullopt : std::optional<size_t>(0);
    Json value;
    ParsedCall call;
    if (!ParseText(text.substr(at, end - at), &value) || !ReadCall(value, names, &call)) return std::nullopt;
    at = SkipSpace(text, end);
    const std::string_view rest = text.substr(at);
    if (!rest.starts_with(kClose)) {
      // The end tag may still come; at the end of the text it may be missing (a stop text).
      if (!last && kClose.starts_with(rest)) return 0;
      if (!last || !kClose.starts_with(rest)) return std::nullopt;
      at = text.size();
    } else {
      at += kClose.size();
    }
    calls->push_back(std::move(call));
    return at;
  }
  std::string Grammar(const std::vector<std::pair<std::string, std::string>>& tools, bool parallel) const override {
    return std::string("root ::= one") + (parallel ? " (\"\\n\" one)*" : "") +
           "\none ::= \"<tool_call>\\n\" call \"\\n</tool_call>\"\n" + Alternatives(tools, "arguments", "call");
  }
};

// {"name": ..., "parameters": {...}}, perhaps several with ';' between, perhaps behind <|python_tag|>: Llama 3.x.
class BareJson final : public ToolSyntax {
 public:
  const char* name() const override { return "llama3"; }
  std::vector<std::string> triggers() const override { return {"<|python_tag|>", "{"}; }
  std::optional<size_t> Parse(std::string_view text, const std::vector<std::string>& names, bool last,
                              std::vector<ParsedCall>* calls) const override {
    constexpr std::string_view kTag = "<|python_tag|>";
    size_t at = text.starts_with(kTag) ? kTag.size() : 0;
    size_t used = 0;
    for (;;) {
      at = SkipSpace(text, at);
      if (at < text.size() && text[at] == ';' && used > 0) at = SkipSpace(text, at + 1);
      if (at == text.size()) {
        // Only at the end is it known that nothing follows that would make this plain text.
        if (!last) return 0;
        if (used > 0) return used;
        return std::nullopt;
      }
      if (text[at] != '{') {
        calls->clear();
        return std::nullopt;
      }
      const size_t end = JsonEnd(text, at);
      if (end == std::string_view::npos) {
        calls->clear();
        return last ? std::nullopt : std::optional<size_t>(0);
      }
      Json value;
      ParsedCall call;
      if (!ParseText(text.substr(at, end - at), &value) || !ReadCall(value, names, &call)) {
        calls->clear();
        return std::nullopt;
      }
      if (last) calls->push_back(std::move(call));
      at = used = end;
    }
  }
  std::string Grammar(const std::vector<std::pair<std::string, std::string>>& tools, bool parallel) const override {
    return std::string("root ::= call") + (parallel ? " (\";\" ws call)*" : "") + "\n" + Alternatives(tools, "parameters", "call");
  }
};

// [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...] and the newer [TOOL_CALLS]name[ARGS]{...}: Mistral.
class Mistral final : public ToolSyntax {
 public:
  const char* name() const override { return "mistral"; }
  std::vector<std::string> triggers() const override { return {"[TOOL_CALLS]"}; }
  std::optional<size_t> Parse(std::string_view text, const std::vector<std::string>& names, bool last,
                              std::vector<ParsedCall>* calls) const override {
    constexpr std::string_view kOpen = "[TOOL_CALLS]", kArgs = "[ARGS]", kId = "[CALL_ID]";
    size_t at = SkipSpace(text, kOpen.size());
    const std::optional<size_t> wait = last ? std::nullopt : std::optional<size_t>(0);
    if (at == text.size()) return wait;
    if (text[at] == '[' || text[at] == '{') {
      const size_t end = JsonEnd(text, at);
      if (end == std::string_view::npos) return wait;
      Json value;
      if (!ParseText(text.substr(at, end - at), &value)) return std::nullopt;
      if (value.is_object()) value = Json::array({value});
      std::vector<ParsedCall> found;
      for (const Json& v : value) {
        ParsedCall call;
        if (!ReadCall(v, names, &call)) return std::nullopt;
        found.push_back(std::move(call));
      }
      if (found.empty()) return std::nullopt;
      calls->insert(calls->end(), found.begin(), found.end());
      return end;
    }
    const size_t brace = text.find('{', at);
    if (brace == std::string_view::npos) return text.size() - at > 256 ? std::nullopt : wait;
    std::string_view name = text.substr(at, brace - at);
    if (const size_t args = name.find(kArgs); args != std::string_view::npos) name = name.substr(0, args);
    if (const size_t id = name.find(kId); id != std::string_view::npos) name = name.substr(0, id);
    while (!name.empty() && IsSpace(name.back())) name.remove_suffix(1);
    const size_t end = JsonEnd(text, brace);
    if (end == std::string_view::npos) return wait;
    Json value;
    if (!ParseText(text.substr(brace, end - brace), &value)) return std::nullopt;
    ParsedCall call;
    if (!ReadCall(Json{{"name", std::string(name)}, {"arguments", value}}, names, &call)) return std::nullopt;
    calls->push_back(std::move(call));
    return end;
  }
  std::string Grammar(const std::vector<std::pair<std::string, std::string>>& tools, bool parallel) const override {
    return std::string("root ::= \"[TOOL_CALLS][\" call") + (parallel ? " (\", \" call)*" : "") + " \"]\"\n" +
           Alternatives(tools, "arguments", "call");
  }
};

const TaggedJson kTagged;
const BareJson kBare;
const Mistral kMistral;

}  // namespace

std::vector<const ToolSyntax*> AllToolSyntaxes() { return {&kTagged, &kBare, &kMistral}; }

const ToolSyntax* SyntaxOf(std::string_view source) {
  const auto has = [&](std::string_view mark) { return source.find(mark) != std::string_view::npos; };
  if (has("<tool_call>")) return &kTagged;
  if (has("[TOOL_CALLS]")) return &kMistral;
  if (has("<|python_tag|>") || has("<|start_header_id|>")) return &kBare;
  return &kTagged;
}

std::string NewCallId() {
  static constexpr char kLetters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string id = "call_";
  for (int i = 0; i < 24; ++i) id += kLetters[random() % (sizeof(kLetters) - 1)];
  return id;
}

}  // namespace lutra::server
