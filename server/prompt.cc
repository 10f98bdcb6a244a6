#include "server/prompt.h"

#include <algorithm>
#include <array>

#include "kernels/base/utf8.h"
#include "server/api_error.h"
#include "server/limits.h"

namespace lutra::server {
namespace {

// Mark what looks like a control token inside of what users wrote, so that after rendering it is still known as theirs. Private-use
// code points; the same ones in a user's text are replaced.
constexpr char kBegin[] = "\xF4\x8F\xBF\xBC", kEnd[] = "\xF4\x8F\xBF\xBD";  // U+10FFFC, U+10FFFD
constexpr size_t kMarkBytes = 4;

// Texts of control tokens by their first byte, longest first.
class ControlTexts {
 public:
  explicit ControlTexts(const Vocab& vocab) {
    for (int32_t id = 0; id < vocab.size(); ++id) {
      const TokenType type = vocab.type(id);
      if (type != TokenType::kControl && type != TokenType::kUnknown &&
          type != TokenType::kUserDefined)
        continue;
      const std::string_view text = vocab.text(id);
      if (text.size() < 2 ||
          (type == TokenType::kUserDefined && text.find('<') == std::string_view::npos))
        continue;
      by_first_[static_cast<uint8_t>(text[0])].push_back(text);
    }
  }
  // Length of the longest control text that `at` begins with, or 0.
  size_t Match(std::string_view at) const {
    size_t best = 0;
    for (const std::string_view text : by_first_[static_cast<uint8_t>(at[0])]) {
      if (text.size() > best && at.starts_with(text)) best = text.size();
    }
    return best;
  }
  std::string Guard(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      if (text.substr(i).starts_with(kBegin) || text.substr(i).starts_with(kEnd)) {
        out += "\xEF\xBF\xBD";
        i += kMarkBytes;
      } else if (const size_t n = Match(text.substr(i)); n > 0) {
        out.append(kBegin).append(text.substr(i, n)).append(kEnd);
        i += n;
      } else {
        out += text[i++];
      }
    }
    return out;
  }

 private:
  std::array<std::vector<std::string_view>, 256> by_first_;
};

void GuardStrings(const ControlTexts& controls, Json* value) {
  if (value->is_string()) {
    *value = controls.Guard(value->get_ref<const std::string&>());
  } else if (value->is_structured()) {
    for (auto& member : *value) GuardStrings(controls, &member);  // depth is bounded by the parser
    // Names of members too: templates print whole objects.
    if (!value->is_object() ||
        std::none_of(value->items().begin(), value->items().end(),
                     [&](const auto& m) { return controls.Guard(m.key()) != m.key(); }))
      return;
    Json guarded = Json::object();
    for (auto& [name, member] : value->items()) guarded[controls.Guard(name)] = std::move(member);
    *value = std::move(guarded);
  }
}

[[noreturn]] void Refuse(const std::string& where, const Json& value, const std::string& takes) {
  throw ApiError(400, where + " is " + ShowJson(value) + "; it takes " + takes, where,
                 "invalid_value");
}

const Json& Member(const Json& object, const char* name) {
  static const Json kNull;
  const auto it = object.find(name);
  return it == object.end() ? kNull : *it;
}

void CheckContent(const Json& content, const std::string& where, bool may_be_null) {
  if (content.is_string() || (content.is_null() && may_be_null)) return;
  if (!content.is_array())
    Refuse(where, content,
           may_be_null ? "a text, a list of parts or null" : "a text or a list of parts");
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = where + "[" + std::to_string(i) + "]";
    if (!content[i].is_object())
      Refuse(at, content[i], "a part: {\"type\": \"text\", \"text\": ...}");
    const Json& type = Member(content[i], "type");
    if (!type.is_string()) Refuse(at + ".type", type, "\"text\"");
    const std::string& name = type.get_ref<const std::string&>();
    if (name ==
        "refusal") {  // what the assistant said instead of an answer; it goes back to the model as text
      if (!Member(content[i], "refusal").is_string())
        Refuse(at + ".refusal", Member(content[i], "refusal"), "a string");
      continue;
    }
    if (name != "text") {
      throw ApiError(400,
                     at + ".type is \"" + Printable(name, 40) +
                         "\": this model reads text only; it takes parts of type \"text\"",
                     at + ".type", "unsupported_content");
    }
    if (!Member(content[i], "text").is_string())
      Refuse(at + ".text", Member(content[i], "text"), "a string");
  }
}

void CheckCalls(const Json& calls, const std::string& where) {
  if (calls.is_null()) return;
  if (!calls.is_array()) Refuse(where, calls, "a list of calls");
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string at = where + "[" + std::to_string(i) + "]";
    if (!calls[i].is_object())
      Refuse(at, calls[i],
             "{\"id\", \"type\": \"function\", \"function\": {\"name\", \"arguments\"}}");
    const Json& function = Member(calls[i], "function");
    if (!function.is_object()) Refuse(at + ".function", function, "{\"name\", \"arguments\"}");
    if (!Member(function, "name").is_string())
      Refuse(at + ".function.name", Member(function, "name"), "a string");
    const Json& arguments = Member(function, "arguments");
    if (!arguments.is_string() && !arguments.is_object())
      Refuse(at + ".function.arguments", arguments, "JSON as a string");
  }
}

void CheckMessages(const Json& messages) {
  if (!messages.is_array()) Refuse("messages", messages, "a list of messages");
  if (messages.empty())
    throw ApiError(400, "messages is empty; it takes at least one message", "messages",
                   "invalid_value");
  if (messages.size() > kMaxMessages)
    Refuse("messages", messages, "at most " + std::to_string(kMaxMessages) + " messages");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string at = "messages[" + std::to_string(i) + "]";
    const Json& m = messages[i];
    if (!m.is_object()) Refuse(at, m, "{\"role\", \"content\"}");
    const Json& role = Member(m, "role");
    static constexpr std::string_view kRoles[] = {"system",    "developer", "user",
                                                  "assistant", "tool",      "function"};
    const bool known =
        role.is_string() && std::find(std::begin(kRoles), std::end(kRoles),
                                      role.get_ref<const std::string&>()) != std::end(kRoles);
    if (!known) Refuse(at + ".role", role, "system, developer, user, assistant, tool or function");
    const bool assistant = role == "assistant";
    CheckContent(Member(m, "content"), at + ".content", assistant);
    if (assistant) CheckCalls(Member(m, "tool_calls"), at + ".tool_calls");
    for (const char* name : {"name", "tool_call_id", "reasoning_content"}) {
      if (!Member(m, name).is_null() && !Member(m, name).is_string())
        Refuse(at + "." + name, Member(m, name), "a string");
    }
  }
}

// Templates know parts of type text only.
void RefusalsToText(Json* messages) {
  for (Json& m : *messages) {
    if (!m.contains("content") || !m["content"].is_array()) continue;
    for (Json& part : m["content"]) {
      if (part["type"] == "refusal") part = Json{{"type", "text"}, {"text", part["refusal"]}};
    }
  }
}

// Tokens of rendered text: what is marked is tokenized as plain text.
std::vector<int32_t> EncodeGuarded(std::string_view text, const Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  bool first = true;
  const auto add = [&](std::string_view part, bool special) {
    if (part.empty() && !first) return;
    const std::vector<int32_t> ids = tokenizer.Encode(part, first, special);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    first = false;
  };
  for (;;) {
    const size_t begin = text.find(kBegin);
    add(text.substr(0, begin), true);
    if (begin == std::string_view::npos) return tokens;
    text.remove_prefix(begin + kMarkBytes);
    const size_t end = text.find(kEnd);
    add(text.substr(0, end), false);
    if (end == std::string_view::npos) return tokens;
    text.remove_prefix(end + kMarkBytes);
  }
}

std::string WithoutMarks(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i).starts_with(kBegin) || text.substr(i).starts_with(kEnd)) {
      i += kMarkBytes;
    } else {
      out += text[i++];
    }
  }
  return out;
}

std::string TextOf(const Json& content) {
  if (content.is_string()) return content;
  std::string text;
  if (content.is_array()) {
    for (const Json& part : content)
      text += Member(part, "text").is_string() ? part["text"].get<std::string>() : "";
  }
  return text;
}

}  // namespace

ChatPrompt MakeChatPrompt(const Params& params, const ServedModel& model) {
  CheckMessages(params.messages);
  const Tokenizer& tokenizer = model.tokenizer();
  const ChatTemplate& chat_template = model.chat_template();
  const ControlTexts controls(tokenizer.vocab());
  ChatRequest request;
  request.messages = params.messages;
  RefusalsToText(&request.messages);
  GuardStrings(controls, &request.messages);
  // Roles are ours, checked above.
  for (size_t i = 0; i < request.messages.size(); ++i)
    request.messages[i]["role"] = params.messages[i]["role"];
  request.tools = params.tools;
  if (request.tools.is_array() && request.tools.empty()) request.tools = nullptr;
  GuardStrings(controls, &request.tools);
  request.add_generation_prompt = params.add_generation_prompt || params.continue_final_message;
  if (params.template_kwargs.is_object()) request.extra = params.template_kwargs;
  GuardStrings(controls, &request.extra);
  if (!params.reasoning_effort.empty()) {
    if (!request.extra.contains("reasoning_effort"))
      request.extra["reasoning_effort"] = params.reasoning_effort;
    if (!request.extra.contains("enable_thinking"))
      request.extra["enable_thinking"] = params.reasoning_effort != "none";
  }
  ChatPrompt prompt;
  std::string tail;
  if (params.continue_final_message) {
    const Json last = request.messages.back();
    if (last["role"] != "assistant" || !Member(last, "tool_calls").is_null()) {
      throw ApiError(
          400, "continue_final_message continues an assistant's text, but the last message is none",
          "continue_final_message", "invalid_value");
    }
    tail = TextOf(Member(last, "content"));
    request.messages.erase(request.messages.size() - 1);
    prompt.prefix = TextOf(Member(params.messages.back(), "content"));
  }
  std::string rendered;
  try {
    rendered = chat_template.Apply(request);
  } catch (const Error& e) {
    throw ApiError(
        400,
        std::string("the model's chat template refuses these messages: ") + WithoutMarks(e.what()),
        "messages", "template_error");
  }
  rendered += tail;
  const std::string bos =
      tokenizer.IsValid(tokenizer.bos()) ? std::string(tokenizer.TokenText(tokenizer.bos())) : "";
  prompt.tokens = EncodeGuarded(StripDuplicateBos(rendered, tokenizer.add_bos(), bos), tokenizer);
  prompt.text = WithoutMarks(rendered);
  prompt.in_thought = tail.empty() && chat_template.EndsInThought(rendered);
  return prompt;
}

std::vector<std::vector<int32_t>> MakePrompts(const Json& value, const char* field,
                                              size_t max_prompts, const ServedModel& model) {
  const std::string takes =
      "a string, a list of strings, a list of token ids or a list of lists of token ids";
  std::vector<std::vector<int32_t>> prompts;
  const auto ids = [&](const Json& list, const std::string& where) {
    std::vector<int32_t> out;
    for (size_t i = 0; i < list.size(); ++i) {
      const bool good = list[i].is_number_integer() &&
                        (!list[i].is_number_unsigned() || list[i].get<uint64_t>() < (1u << 31)) &&
                        model.tokenizer().IsValid(list[i].get<int64_t>());
      if (!good) {
        Refuse(where + "[" + std::to_string(i) + "]", list[i],
               "a token id from 0 to " + std::to_string(model.tokenizer().n_vocab() - 1));
      }
      out.push_back(list[i].get<int32_t>());
    }
    return out;
  };
  const auto text = [&](const Json& s) {
    return model.tokenizer().Encode(s.get_ref<const std::string&>(), true, true);
  };
  if (value.is_null())
    throw ApiError(400, std::string("field '") + field + "' is missing; it takes " + takes, field,
                   "missing_field");
  if (value.is_string()) {
    prompts.push_back(text(value));
  } else if (!value.is_array() || value.empty()) {
    Refuse(field, value, takes);
  } else if (value[0].is_number()) {
    prompts.push_back(ids(value, field));
  } else {
    if (value.size() > max_prompts) {
      throw ApiError(400,
                     Format("field '%s' has %zu entries; it takes at most %zu", field, value.size(),
                            max_prompts),
                     field, "invalid_value");
    }
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string where = std::string(field) + "[" + std::to_string(i) + "]";
      if (value[i].is_string()) {
        prompts.push_back(text(value[i]));
      } else if (value[i].is_array() && !value[i].empty()) {
        prompts.push_back(ids(value[i], where));
      } else {
        Refuse(where, value[i], takes);
      }
    }
  }
  for (const auto& prompt : prompts) {
    if (prompt.empty())
      throw ApiError(400,
                     std::string("field '") + field + "' is empty; it takes at least one token",
                     field, "invalid_value");
  }
  return prompts;
}

void CheckContext(size_t n_prompt, size_t wanted, const ServedModel& model, const char* field) {
  if (n_prompt + wanted <= model.n_ctx()) return;
  const size_t n_ctx = model.n_ctx();
  throw ApiError(400,
                 Format("This model's maximum context length is %zu tokens, but the request has "
                        "%zu tokens: request (%zu tokens) "
                        "exceeds the available context size (%zu tokens). Please reduce the length "
                        "of the messages.",
                        n_ctx, n_prompt, n_prompt, n_ctx),
                 field, "context_length_exceeded",
                 Json{{"n_prompt_tokens", n_prompt}, {"n_ctx", n_ctx}});
}

}  // namespace lutra::server
