// Chat templates: the model's own Jinja text applied to messages, with the adjustments that clients
// expect (template_traits.h).
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "models/chat/jinja/jinja.h"
#include "models/chat/template_traits.h"
#include "models/gguf.h"

namespace lutra {

struct ChatRequest {
  // Objects with "role", "content", "tool_calls", "reasoning_content", ... in OpenAI's form.
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  nlohmann::ordered_json tools;  // null, or a list in OpenAI's form
  bool add_generation_prompt = true;
  // More variables (enable_thinking, ...); they override all others. Null counts as none.
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();
  std::optional<std::tm> now;  // local time the template sees; unset: the present
};

// Where thoughts begin and end in the model's output; empty if the template knows none.
struct ReasoningTags {
  std::string start, end;
};

// Immutable after construction; shared by threads.
class ChatTemplate {
 public:
  // ChatML, for models that bring no template.
  static const char* ChatMl();

  // Throws Error naming the line and construct if the source cannot be parsed. The literal "chatml"
  // stands for ChatML.
  ChatTemplate(std::string_view source, std::string bos_token, std::string eos_token);

  // The template of a model file: `override_source` if it is not empty, else
  // tokenizer.chat_template (and, for requests with tools, tokenizer.chat_template.tool_use if the
  // file has that), else one that we bring: for 40 layers over the tekken vocabulary its own, else
  // ChatML. What we bring is said by a warning, and so is a template in the file that cannot be
  // parsed. Throws Error for an override that cannot be parsed.
  static ChatTemplate FromGguf(const GgufFile& file, std::string bos_token, std::string eos_token,
                               const std::string& override_source = "");

  // The prompt's text for adjusted messages. Variables: messages, tools (if there are any),
  // bos_token, eos_token, add_generation_prompt (true or absent), date_string, datetime, and the
  // request's extra. Throws Error: jinja::TemplateRaised with the template's own message where it
  // refuses; others as jinja::Template::Render and AdjustMessages say.
  std::string Apply(const ChatRequest& request) const;

  const std::string& source() const { return source_; }
  // True if neither the user nor the file gave a template that works.
  bool is_fallback() const { return is_fallback_; }
  const TemplateTraits& traits() const { return traits_; }
  const ReasoningTags& reasoning() const { return reasoning_; }
  // True if the template reads `enable_thinking`.
  bool has_thinking_switch() const { return has_thinking_switch_; }
  // True if `prompt` ends with the start of a thought: the model's output begins inside of it.
  bool EndsInThought(std::string_view prompt) const;

 private:
  std::string Render(const nlohmann::ordered_json& messages, const ChatRequest& request,
                     size_t max_steps) const;

  std::string source_, bos_, eos_;
  jinja::Template template_;
  ReasoningTags reasoning_;
  TemplateTraits traits_;
  bool has_thinking_switch_ = false;
  bool is_fallback_ = false;
  std::shared_ptr<const ChatTemplate>
      tool_use_;  // for requests with tools; shared by copies of this
};

// `rendered` without one BOS text in front if the tokenizer will add BOS itself, so that it is
// never doubled.
std::string_view StripDuplicateBos(std::string_view rendered, bool vocab_adds_bos,
                                   std::string_view bos_text);

}  // namespace lutra
