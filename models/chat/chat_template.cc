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

// Models of the tekken vocabulary (version 7) that were published without a template.
constexpr const char* kTekkenV7 =
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "{%- if message['role'] == 'system' -%}\n"
    "{{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' -}}\n"
    "{%- elif message['role'] == 'assistant' -%}\n"
    "{{- message['content'] + eos_token -}}\n"
    "{%- else -%}\n"
    "{{- '[INST]' + message['content'] + '[/INST]' -}}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}";
constexpr uint32_t kTekkenV7Layers = 40;

constexpr size_t kProbeSteps = 500'000;  // of one probe; real templates take a few hundred

ReasoningTags FindReasoning(const std::string& source) {
  static constexpr std::pair<const char*, const char*> kRows[] = {
      {"<think>", "</think>"},
      {"[THINK]", "[/THINK]"},
  };
  for (const auto& [start, end] : kRows) {
    const bool found = source.find(start) != std::string::npos;
    if (found || source.find(end) != std::string::npos) return {start, end};
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

bool HasTools(const ChatRequest& request) {
  return request.tools.is_array() && !request.tools.empty();
}

std::string MetadataText(const GgufFile& file, std::string_view key) {
  return std::string(file.GetString(key).value_or(""));
}

const char* BuiltInFor(const GgufFile& file) {
  const std::string layers = MetadataText(file, "general.architecture") + ".block_count";
  const bool tekken = MetadataText(file, "tokenizer.ggml.pre") == "tekken" &&
                      file.GetU32(layers) == kTekkenV7Layers;
  return tekken ? kTekkenV7 : kChatMl;
}

}  // namespace

const char* ChatTemplate::ChatMl() { return kChatMl; }

ChatTemplate::ChatTemplate(std::string_view source, std::string bos_token, std::string eos_token)
    : source_(source == "chatml" ? std::string_view(kChatMl) : source),
      bos_(std::move(bos_token)),
      eos_(std::move(eos_token)),
      template_(jinja::Template::Parse(source_)),
      reasoning_(FindReasoning(source_)),
      has_thinking_switch_(source_.find("enable_thinking") != std::string::npos) {
  traits_ = ProbeTraits(source_, [this](const Json& messages, const Json& tools) {
    ChatRequest request;
    request.tools = tools;
    return Render(messages, request, kProbeSteps);
  });
}

ChatTemplate ChatTemplate::FromGguf(const GgufFile& file, std::string bos_token,
                                    std::string eos_token, const std::string& override_source) {
  if (!override_source.empty()) return ChatTemplate(override_source, bos_token, eos_token);
  // nullopt: absent, or said aloud why it is of no use.
  const auto load = [&](const char* key) -> std::optional<ChatTemplate> {
    const std::string source = MetadataText(file, key);
    if (source.empty()) return std::nullopt;
    try {
      return ChatTemplate(source, bos_token, eos_token);
    } catch (const Error& e) {
      Log(LogLevel::kWarning, "%s: %s is of no use: %s", file.path().c_str(), key, e.what());
      return std::nullopt;
    }
  };
  std::optional<ChatTemplate> chosen = load("tokenizer.chat_template");
  if (!chosen) {
    const char* built_in = BuiltInFor(file);
    Log(LogLevel::kWarning,
        "%s: no chat template to use in the model; taking %s, which it may not know",
        file.path().c_str(), built_in == kChatMl ? "ChatML" : "that of tekken models");
    chosen.emplace(built_in, bos_token, eos_token);
    chosen->is_fallback_ = true;
  }
  if (auto tool_use = load("tokenizer.chat_template.tool_use")) {
    chosen->tool_use_ = std::make_shared<const ChatTemplate>(std::move(*tool_use));
  }
  return std::move(*chosen);
}

std::string ChatTemplate::Render(const Json& messages, const ChatRequest& request,
                                 size_t max_steps) const {
  const std::tm now = request.now ? *request.now : Now();
  Json context = Json::object();
  context["messages"] = messages;
  if (HasTools(request)) context["tools"] = request.tools;
  context["bos_token"] = bos_;
  context["eos_token"] = eos_;
  if (request.add_generation_prompt) context["add_generation_prompt"] = true;
  context["date_string"] = FormatTime(now, "%d %b %Y");
  context["datetime"] = FormatTime(now, "%b %d %Y");
  if (!request.extra.is_null()) {
    if (!request.extra.is_object()) {
      Fail(ErrorCode::kInvalidArgument, "chat_template_kwargs: must be an object, not %s",
           request.extra.type_name());
    }
    for (const auto& [key, value] : request.extra.items()) context[key] = value;
  }
  jinja::RenderOptions options;
  options.now = now;
  options.max_steps = max_steps;
  return template_.Render(context, options);
}

std::string ChatTemplate::Apply(const ChatRequest& request) const {
  if (HasTools(request) && tool_use_ != nullptr) return tool_use_->Apply(request);
  return Render(AdjustMessages(request.messages, traits_), request, jinja::kDefaultMaxSteps);
}

bool ChatTemplate::EndsInThought(std::string_view prompt) const {
  if (reasoning_.start.empty()) return false;
  const size_t last = prompt.find_last_not_of(" \t\r\n");
  return last != std::string_view::npos && prompt.substr(0, last + 1).ends_with(reasoning_.start);
}

std::string_view StripDuplicateBos(std::string_view rendered, bool vocab_adds_bos,
                                   std::string_view bos_text) {
  if (vocab_adds_bos && !bos_text.empty() && rendered.starts_with(bos_text)) {
    rendered.remove_prefix(bos_text.size());
  }
  return rendered;
}

}  // namespace lutra
