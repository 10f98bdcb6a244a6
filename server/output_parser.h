// The model's text taken apart while it comes: thoughts, content, tool calls.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/chat/chat_template.h"

namespace lutra::server {

struct CallDelta {
  size_t index = 0;
  std::string id, name;    // of the first delta of a call; later ones have none
  std::string arguments;   // a piece of JSON text
};

struct OutputDelta {
  std::string content, reasoning;
  std::vector<CallDelta> calls;
  bool empty() const { return content.empty() && reasoning.empty() && calls.empty(); }
};

// How a model writes calls: one object a syntax, see tool_syntax.h.
class ToolSyntax;

struct OutputFormat {
  ReasoningTags reasoning;     // empty: thoughts are not split
  bool in_thought = false;     // the text begins inside a thought
  const ToolSyntax* tools = nullptr;  // null: calls are not looked for
  std::vector<std::string> tool_names;
};

// For one answer; one thread. What cannot be told apart yet (the beginning of a tag) is held back.
class OutputParser {
 public:
  explicit OutputParser(OutputFormat format);
  ~OutputParser();

  void Feed(std::string_view text, OutputDelta* out);
  // The end of the text: what is held back comes out. Calls that were begun and do not parse are content.
  void Finish(OutputDelta* out);

  size_t n_calls() const { return n_calls_; }
  bool thinking() const { return state_ == State::kThought; }

 private:
  enum class State { kThought, kContent, kCall };
  void Advance(bool last, OutputDelta* out);
  void Emit(std::string_view text, OutputDelta* out);

  OutputFormat format_;
  State state_;
  std::string held_;       // not decided yet
  bool trim_ = false;      // white space in front of what comes next is dropped (behind tags)
  size_t n_calls_ = 0;
  bool shown_ = false;     // content was given out
};

// The longest end of `text` that is a beginning of `tag` (shorter than the tag).
size_t PartialTag(std::string_view text, std::string_view tag);

}  // namespace lutra::server
