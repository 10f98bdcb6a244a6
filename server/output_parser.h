// The model's text taken apart while it comes: thoughts, content, tool calls.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/chat/chat_template.h"
#include "server/tool_syntax.h"

namespace lutra::server {

struct CallDelta {
  size_t index = 0;
  std::string id,
      name;  // of the first delta of a call, which has no arguments; later ones have neither
  std::string arguments;  // a piece of JSON text
};

struct OutputDelta {
  std::string content, reasoning;
  std::vector<CallDelta> calls;
  bool empty() const { return content.empty() && reasoning.empty() && calls.empty(); }
};

struct OutputFormat {
  ReasoningTags reasoning;             // empty: thoughts are not split
  bool in_thought = false;             // the text begins inside a thought
  const ToolSyntax* syntax = nullptr;  // of calls; null: they are not looked for
  std::shared_ptr<const Tools>
      tools;  // those that may be called; shared by the answers of a request
  bool calls_hold =
      false;  // a grammar governs calls once they have begun: they are given out while they are written
};

// For one answer; one thread. What cannot be told apart yet (the beginning of a tag) is held back.
class OutputParser {
 public:
  explicit OutputParser(OutputFormat format);

  void Feed(std::string_view text, OutputDelta* out);
  // The end of the text: what is held back comes out. Calls that were begun and do not parse are content.
  void Finish(OutputDelta* out);

  size_t n_calls() const { return n_calls_; }
  bool thinking() const { return state_ == State::kThought; }
  // The text of the calls that are being read, from their trigger on; null if there are none for certain.
  const std::string* CallText() const;

 private:
  enum class State { kThought, kContent, kCall };
  void Advance(bool last, OutputDelta* out);
  void Emit(std::string_view text, OutputDelta* out);
  bool ReadCalls(bool last, OutputDelta* out);

  OutputFormat format_;
  State state_;
  std::string held_;   // not decided yet
  bool trim_ = false;  // white space in front of what comes next is dropped (behind tags)
  size_t n_calls_ = 0;
  bool shown_ = false;                  // content was given out
  std::unique_ptr<CallReader> reader_;  // while calls are read
  std::vector<CallPiece>
      pieces_;  // of which something is known; kept until they are whole unless calls_hold
  bool call_known_ = false;
};

// The longest end of `text` that is a beginning of `tag` (shorter than the tag).
size_t PartialTag(std::string_view text, std::string_view tag);

}  // namespace lutra::server
