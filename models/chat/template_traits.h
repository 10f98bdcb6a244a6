// What a chat template does with messages, found by rendering small conversations, and the messages
// changed to suit it. Clients send OpenAI's form; templates differ in which parts of it they read.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

namespace lutra {

enum class ContentForm : uint8_t {
  kAny,   // texts and lists of parts both reach the prompt, or neither does: leave them as they are
  kText,  // only texts: lists of text parts are joined
  kParts,  // only lists: a text becomes one part of type "text"
};

// The form in which a template prints a call's arguments, and what it wants as content beside
// calls.
enum class ArgumentForm : uint8_t { kUnknown, kObject, kText };

struct TemplateTraits {
  bool system_role = true;      // a system message reaches the prompt
  bool developer_role = false;  // the template tells "developer" from "system" itself
  bool tool_calls = false;      // calls in messages reach the prompt
  ContentForm content = ContentForm::kAny;
  ArgumentForm arguments = ArgumentForm::kUnknown;
  bool null_content = false;  // calls are printed only beside a content of null, else of ""
};

// Renders `messages` with `tools` (null: none). Throws Error where the template refuses.
using ProbeRender = std::function<std::string(const nlohmann::ordered_json& messages,
                                              const nlohmann::ordered_json& tools)>;

// Never throws what `render` throws: a template that refuses a probe lacks that trait, and one that
// runs away (kResourceExhausted) ends the probing. At most nine renderings.
TemplateTraits ProbeTraits(const std::string& source, const ProbeRender& render);

// `messages` in the form that the template takes:
//   role "developer" becomes "system"; system texts go in front of the next user text, with a
//   newline, where the template has no system role; contents change between text and parts; an
//   absent or null content becomes "" (null beside calls where the template asks for that);
//   arguments of calls change between JSON text and object. What does not apply is left alone: the
//   template's own refusals remain.
// `messages` must not be nested deeper than a few hundred levels (the request parser's limit is
// 64). Throws Error(kInvalidArgument) naming the message: no list, no object, no role, or a part
// that is no text for a template that takes only texts.
nlohmann::ordered_json AdjustMessages(const nlohmann::ordered_json& messages,
                                      const TemplateTraits& traits);

}  // namespace lutra
