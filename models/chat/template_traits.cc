#include "models/chat/template_traits.h"

#include <algorithm>
#include <optional>

#include "kernels/base/error.h"

namespace lutra {
namespace {

using Json = nlohmann::ordered_json;

// Texts that no template holds, to see what reaches the output.
constexpr const char* kProbe = "lutra-probe-7f3a";
constexpr const char* kProbeKey = "lutra_key";
constexpr size_t kMaxArgumentDepth = 64;  // of JSON in a call's arguments

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Json Message(const char* role, Json content) {
  return {{"role", role}, {"content", std::move(content)}};
}

Json ProbeTools() {
  const Json parameter = {{"type", "string"}, {"description", "d"}};
  const Json parameters = {{"type", "object"},
                           {"properties", {{kProbeKey, parameter}}},
                           {"required", Json::array({kProbeKey})}};
  return Json::array(
      {{{"type", "function"},
        {"function", {{"name", "probe"}, {"description", "d"}, {"parameters", parameters}}}}});
}

class Prober {
 public:
  Prober(const std::string& source, const ProbeRender& render) : source_(source), render_(render) {}

  TemplateTraits Run() {
    traits_.developer_role = Has(source_, "developer");
    traits_.tool_calls = false;
    ProbeContent();
    ProbeSystem();
    ProbeCalls();
    return traits_;
  }

 private:
  // The rendering; nothing if the template refuses.
  std::optional<std::string> Try(const Json& messages, const Json& tools = nullptr) {
    if (stopped_) return std::nullopt;
    try {
      return render_(messages, tools);
    } catch (const Error& e) {
      stopped_ = e.code() == ErrorCode::kResourceExhausted;
      return std::nullopt;
    }
  }

  void ProbeContent() {
    const auto text = Try(Json::array({Message("user", kProbe)}));
    const bool takes_text = text && Has(*text, kProbe);
    const Json parts = Json::array({{{"type", "text"}, {"text", kProbe}}});
    const auto list = Try(Json::array({Message("user", parts)}));
    // A list that is printed as it is shows its keys.
    const bool takes_parts =
        list && Has(*list, kProbe) && !Has(*list, "'text'") && !Has(*list, "\"text\"");
    if (stopped_ || takes_text == takes_parts) return;
    traits_.content = takes_text ? ContentForm::kText : ContentForm::kParts;
  }

  Json Content(const char* text) const {
    if (traits_.content != ContentForm::kParts) return text;
    return Json::array({{{"type", "text"}, {"text", text}}});
  }

  void ProbeSystem() {
    const Json user = Message("user", Content("x"));
    if (!Try(Json::array({user}))) return;  // it fails without a system message too
    const auto text = Try(Json::array({Message("system", Content(kProbe)), user}));
    if (!stopped_) traits_.system_role = text && Has(*text, kProbe);
  }

  // A conversation with one call and its result; nine letters and digits are the strictest id.
  std::optional<std::string> TryCall(bool null_content, bool as_object) {
    const Json object = {{kProbeKey, kProbe}};
    const Json arguments = as_object ? object : Json(Text(object));
    Json assistant = Message("assistant", null_content ? Json(nullptr) : Json(""));
    assistant["tool_calls"] =
        Json::array({{{"id", "probe0001"},
                      {"type", "function"},
                      {"function", {{"name", "probe"}, {"arguments", arguments}}}}});
    Json result = Message("tool", Content("r"));
    result["tool_call_id"] = "probe0001";
    result["name"] = "probe";
    return Try(Json::array({Message("user", Content("x")), assistant, result}), ProbeTools());
  }

  static std::string Text(const Json& object) {
    return "{\"" + std::string(kProbeKey) + "\": \"" + object[kProbeKey].get<std::string>() + "\"}";
  }

  void ProbeCalls() {
    const std::string key = kProbeKey;
    for (const bool null_content : {false, true}) {
      for (const bool as_object : {true, false}) {
        const auto text = TryCall(null_content, as_object);
        if (!text || !Has(*text, kProbe)) continue;
        // An object printed as Python does, or a text quoted once more, is not what the model
        // knows.
        const bool object_is_fine = !Has(*text, "'" + key + "'") && !Has(*text, "\\\"" + key);
        const bool text_is_fine = Has(*text, Text({{key, kProbe}}));
        if (!(as_object ? object_is_fine : text_is_fine)) continue;
        traits_.tool_calls = true;
        traits_.arguments = as_object ? ArgumentForm::kObject : ArgumentForm::kText;
        traits_.null_content = null_content;
        return;
      }
    }
  }

  const std::string& source_;
  const ProbeRender& render_;
  TemplateTraits traits_;
  bool stopped_ = false;
};

// Brackets within brackets in JSON text, those in strings not counted.
size_t JsonDepth(const std::string& text) {
  size_t depth = 0;
  size_t deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

// Arguments in the form the template prints. Text that is no JSON object stays text: a model wrote
// it, and the conversation has to go on.
void AdjustArguments(Json* function, ArgumentForm form) {
  const auto found = function->find("arguments");
  if (found == function->end()) return;
  Json& arguments = *found;
  if (form == ArgumentForm::kObject && arguments.is_string()) {
    const std::string& text = arguments.get_ref<const std::string&>();
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) {  // a call without arguments
      arguments = Json::object();
      return;
    }
    if (JsonDepth(text) > kMaxArgumentDepth) return;
    Json parsed = Json::parse(text, nullptr, false);
    if (parsed.is_object()) arguments = std::move(parsed);
  } else if (form == ArgumentForm::kText && !arguments.is_string()) {
    arguments = arguments.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
}

bool HasCalls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

// The text parts of a content, one after the other.
std::string JoinParts(const Json& parts, size_t i_message) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Json& part = parts[i];
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string() &&
                         part.value("type", Json("text")) == "text";
    if (!is_text) {
      Fail(
          ErrorCode::kInvalidArgument,
          "messages[%zu].content[%zu]: the model's chat template takes only parts of type \"text\"",
          i_message, i);
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

void AdjustContent(Json* message, const TemplateTraits& traits, size_t i_message) {
  Json& content = (*message)["content"];  // null if absent
  if (HasCalls(*message)) {
    if (content.is_null() || content == "") {
      content = traits.null_content ? Json(nullptr) : Json("");
      return;
    }
  } else if (content.is_null()) {
    content = "";
  }
  if (traits.content == ContentForm::kText && content.is_array()) {
    content = JoinParts(content, i_message);
  } else if (traits.content == ContentForm::kParts && content.is_string()) {
    content = Json::array({{{"type", "text"}, {"text", content}}});
  }
}

// Text in front of a content of either form.
void Prepend(const std::string& text, Json* content) {
  if (content->is_string()) {
    *content = text + "\n" + content->get_ref<const std::string&>();
  } else if (content->is_array()) {
    content->insert(content->begin(), Json{{"type", "text"}, {"text", text + "\n"}});
  }
}

}  // namespace

TemplateTraits ProbeTraits(const std::string& source, const ProbeRender& render) {
  return Prober(source, render).Run();
}

Json AdjustMessages(const Json& messages, const TemplateTraits& traits) {
  if (!messages.is_array()) {
    Fail(ErrorCode::kInvalidArgument, "messages: must be a list, not %s", messages.type_name());
  }
  Json out = Json::array();
  std::string system;  // waits for a user message to go in front of
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object() || !messages[i].contains("role") ||
        !messages[i]["role"].is_string()) {
      Fail(ErrorCode::kInvalidArgument, "messages[%zu]: must be an object with a \"role\"", i);
    }
    Json message = messages[i];
    if (message["role"] == "developer" && !traits.developer_role) message["role"] = "system";
    AdjustContent(&message, traits, i);
    if (HasCalls(message) && traits.arguments != ArgumentForm::kUnknown) {
      for (Json& call : message["tool_calls"]) {
        if (!call.is_object()) continue;
        const auto function = call.find("function");
        Json& holder = function != call.end() ? *function : call;
        if (holder.is_object()) AdjustArguments(&holder, traits.arguments);
      }
    }
    if (message["role"] == "system" && !traits.system_role) {
      const Json& content = message["content"];
      if (!system.empty()) system += "\n";
      system += content.is_array()    ? JoinParts(content, i)
                : content.is_string() ? content.get<std::string>()
                                      : "";
      continue;
    }
    if (message["role"] == "user" && !system.empty()) {
      Prepend(system, &message["content"]);
      system.clear();
    }
    out.push_back(std::move(message));
  }
  if (!system.empty()) {  // no user message followed
    Json message = Message("user", std::move(system));
    AdjustContent(&message, traits, messages.size());
    out.push_back(std::move(message));
  }
  return out;
}

}  // namespace lutra
