#include "models/chat/chat_template.h"

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kChatMl =
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

// A text that no template holds, to see whether a message reaches the output.
constexpr const char* kProbe = "lutra-probe-7f3a";

ReasoningTags FindReasoning(const std::string& source) {
  for (const auto& [start, end] : {std::pair<const char*, const char*>{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}}) {
    if (source.find(end) != std::string::npos) return {start, end};
  }
  return {};
}

std::tm Now() {
  const std::time_t t = std::time(nullptr);
  std::tm tm = {};
  localtime_r(&t, &tm);
  return tm;
}

std::string FormatTime(const std::tm& tm, const char* format) {
  char text[64];
  return std::string(text, std::strftime(text, sizeof text, format, &tm));
}

}  // namespace

const char* ChatTemplate::ChatMl() { return kChatMl; }

ChatTemplate::ChatTemplate(std::string_view source, std::string bos_token, std::string eos_token)
    : source_(source),
      bos_(std::move(bos_token)),
      eos_(std::move(eos_token)),
      template_(jinja::Template::Parse(source_)),
      reasoning_(FindReasoning(source_)) {
  // Does a system message reach the prompt? A template that refuses or drops it gets its text in the user's turn.
  ChatRequest probe;
  const Json user = {{"role", "user"}, {"content", "x"}};
  try {
    const std::string text = Render(Json::array({{{"role", "system"}, {"content", kProbe}}, user}), probe);
    takes_system_ = text.find(kProbe) != std::string::npos;
  } catch (const jinja::TemplateRaised&) {
    takes_system_ = false;
  } catch (const Error&) {
    // It fails for another reason; Apply will report it.
  }
}

ChatTemplate ChatTemplate::FromGguf(const GgufFile& file, std::string bos_token, std::string eos_token,
                                    const std::string& override_source, bool with_tools) {
  std::string source = override_source;
  if (source == "chatml") source = kChatMl;
  if (source.empty() && with_tools) {
    source = std::string(file.GetString("tokenizer.chat_template.tool_use").value_or(""));
  }
  if (source.empty()) source = std::string(file.GetString("tokenizer.chat_template").value_or(""));
  if (source.empty()) {
    Log(LogLevel::kWarning, "%s: the model brings no chat template; using ChatML, which it may not know", file.path().c_str());
    source = kChatMl;
  }
  return ChatTemplate(source, std::move(bos_token), std::move(eos_token));
}

std::string ChatTemplate::Render(const Json& messages, const ChatRequest& request) const {
  const std::tm now = request.now.value_or(Now());
  Json context = Json::object();
  context["messages"] = messages;
  if (request.tools.is_array() && !request.tools.empty()) context["tools"] = request.tools;
  context["bos_token"] = bos_;
  context["eos_token"] = eos_;
  if (request.add_generation_prompt) context["add_generation_prompt"] = true;
  context["date_string"] = FormatTime(now, "%d %b %Y");
  context["datetime"] = FormatTime(now, "%b %d %Y");
  for (const auto& [key, value] : request.extra.items()) context[key] = value;
  jinja::RenderOptions options;
  options.now = now;
  return template_.Render(context, options);
}

std::string ChatTemplate::Apply(const ChatRequest& request) const {
  if (!request.messages.is_array()) Fail(ErrorCode::kInvalidArgument, "messages: must be a list");
  Json messages = Json::array();
  std::string system;
  for (const Json& given : request.messages) {
    if (!given.is_object() || !given.contains("role") || !given["role"].is_string()) {
      Fail(ErrorCode::kInvalidArgument, "messages[%zu]: must be an object with a \"role\"", messages.size());
    }
    Json message = given;
    if (message["role"] == "developer") message["role"] = "system";
    if (!message.contains("content")) message["content"] = "";
    if (!takes_system_ && message["role"] == "system" && message["content"].is_string()) {
      system += (system.empty() ? "" : "\n") + message["content"].get<std::string>();
      continue;
    }
    if (!system.empty() && message["role"] == "user" && message["content"].is_string()) {
      message["content"] = system + "\n" + message["content"].get<std::string>();
      system.clear();
    }
    messages.push_back(std::move(message));
  }
  return Render(messages, request);
}

std::string_view StripDuplicateBos(std::string_view rendered, bool vocab_adds_bos, std::string_view bos_text) {
  if (vocab_adds_bos && !bos_text.empty() && rendered.starts_with(bos_text)) rendered.remove_prefix(bos_text.size());
  return rendered;
}

}  // namespace lutra
