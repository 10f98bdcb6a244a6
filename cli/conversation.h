// A chat: messages, the model's template, and the tokens of it all in a session.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/generate.h"
#include "models/chat/chat_template.h"

namespace lutra::cli {

// One thread. The engine and the session must outlive it.
class Conversation {
 public:
  // Takes the template from the model file, or `template_source` if it is not empty. Throws Error naming the line and construct
  // if the template cannot be parsed.
  Conversation(Engine& engine, Session& session, const std::string& template_source = "");

  // Empty: no system message.
  void SetSystem(const std::string& text);
  std::string system() const;

  // Adds the user's message, generates the answer and adds it. If generating throws, the message is taken back. A cancelled
  // answer is kept as far as it came.
  Generation Ask(const std::string& text, const GenerateOptions& options);
  // Drops the last answer and generates another. Throws Error(kInvalidArgument) if there is none.
  Generation Regenerate(const GenerateOptions& options);
  // Drops the last user message and what followed. False if there is none.
  bool Undo();
  // Forgets all but the system message.
  void Clear();

  const nlohmann::ordered_json& messages() const { return messages_; }
  size_t n_turns() const;
  // Variables for the template, such as enable_thinking.
  void SetTemplateVariable(const std::string& name, nlohmann::ordered_json value) {
    extra_[name] = std::move(value);
  }

  // JSON file {"format": "lutra-chat", "messages": [...]}. Load also takes a bare list of messages. Throw Error(kIo, kNotFound,
  // kCorrupt) naming the file; a failed Load changes nothing.
  void Save(const std::string& path) const;
  void Load(const std::string& path);

 private:
  Generation Answer(const GenerateOptions& options);
  std::vector<int32_t> PromptTokens();

  Engine& engine_;
  Session& session_;
  ChatTemplate template_;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
  nlohmann::ordered_json extra_ = nlohmann::ordered_json::object();
  // What the session's tokens spell, as far as it was rendered by the template: the last prompt and its answer.
  std::string rendered_;
  std::vector<int32_t> rendered_tokens_;
};

}  // namespace lutra::cli
