// Chat templates: the model's own Jinja text applied to messages, with the adjustments that clients expect.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "models/chat/jinja/jinja.h"
#include "models/gguf.h"

namespace lutra {

struct ChatRequest {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();  // objects with "role", "content", ...
  nlohmann::ordered_json tools;       // null, or a list in OpenAI's form
  bool add_generation_prompt = true;
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();    // more variables; they override
  std::optional<std::tm> now;         // unset: the present
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

  // Throws Error naming the line and construct if the source cannot be parsed.
  ChatTemplate(std::string_view source, std::string bos_token, std::string eos_token);

  // The template of a model file: `override_source` if it is not empty, else tokenizer.chat_template, else ChatML, which is said by a
  // warning. With tools, tokenizer.chat_template.tool_use if the file has one.
  static ChatTemplate FromGguf(const GgufFile& file, std::string bos_token, std::string eos_token,
                               const std::string& override_source = "", bool with_tools = false);

  // The prompt's text. The messages are adjusted first: role "developer" becomes "system"; where the template refuses or drops a
  // system message, its text goes in front of the first user message. Throws Error: what the template raises with its message;
  // kInvalidArgument for messages that are no list of objects with a role.
  std::string Apply(const ChatRequest& request) const;

  const std::string& source() const { return source_; }
  const ReasoningTags& reasoning() const { return reasoning_; }

 private:
  std::string Render(const nlohmann::ordered_json& messages, const ChatRequest& request) const;

  std::string source_, bos_, eos_;
  jinja::Template template_;
  ReasoningTags reasoning_;
  bool takes_system_ = true;
};

// `rendered` without one BOS text in front if the tokenizer will add BOS itself, so that it is never doubled.
std::string_view StripDuplicateBos(std::string_view rendered, bool vocab_adds_bos, std::string_view bos_text);

}  // namespace lutra
