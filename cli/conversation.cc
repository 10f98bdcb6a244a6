#include "cli/conversation.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "kernels/base/error.h"
#include "kernels/base/utf8.h"

namespace lutra::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxChatFileBytes = 64u << 20;

std::string SpecialText(const Tokenizer& tokenizer, int32_t id) {
  return tokenizer.IsValid(id) ? std::string(tokenizer.TokenText(id)) : "";
}

ChatTemplate LoadTemplate(const Engine& engine, const std::string& source) {
  const Tokenizer& tokenizer = engine.tokenizer();
  return ChatTemplate::FromGguf(engine.model().file(), SpecialText(tokenizer, tokenizer.bos()),
                                SpecialText(tokenizer, tokenizer.eos()), source);
}

}  // namespace

Conversation::Conversation(Engine& engine, Session& session, const std::string& template_source)
    : engine_(engine), session_(session), template_(LoadTemplate(engine, template_source)) {}

void Conversation::SetSystem(const std::string& text) {
  if (!messages_.empty() && messages_[0]["role"] == "system") messages_.erase(0);
  if (!text.empty())
    messages_.insert(messages_.begin(), Json{{"role", "system"}, {"content", Utf8Sanitize(text)}});
}

std::string Conversation::system() const {
  return !messages_.empty() && messages_[0]["role"] == "system"
             ? messages_[0]["content"].get<std::string>()
             : "";
}

size_t Conversation::n_turns() const {
  return static_cast<size_t>(std::count_if(messages_.begin(), messages_.end(),
                                           [](const Json& m) { return m["role"] == "user"; }));
}

Generation Conversation::Ask(const std::string& text, const GenerateOptions& options) {
  messages_.push_back(Json{{"role", "user"}, {"content", Utf8Sanitize(text)}});
  try {
    return Answer(options);
  } catch (...) {
    messages_.erase(messages_.size() - 1);
    throw;
  }
}

Generation Conversation::Regenerate(const GenerateOptions& options) {
  if (messages_.empty() || messages_.back()["role"] != "assistant") {
    Fail(ErrorCode::kInvalidArgument, "there is no answer to generate again");
  }
  Json old = messages_.back();
  messages_.erase(messages_.size() - 1);
  try {
    return Answer(options);
  } catch (...) {
    messages_.push_back(std::move(old));
    throw;
  }
}

bool Conversation::Undo() {
  for (size_t i = messages_.size(); i-- > 0;) {
    if (messages_[i]["role"] != "user") continue;
    while (messages_.size() > i) messages_.erase(messages_.size() - 1);
    return true;
  }
  return false;
}

void Conversation::Clear() {
  const std::string keep = system();
  messages_.clear();
  SetSystem(keep);
}

std::vector<int32_t> Conversation::PromptTokens() {
  const Tokenizer& tokenizer = engine_.tokenizer();
  ChatRequest request;
  request.messages = messages_;
  request.extra = extra_;
  const std::string rendered = template_.Apply(request);
  // Where the new text only goes on from what the session's tokens spell, those tokens stay as they were generated: the same text
  // could also be cut into other tokens, and all would be computed again. What follows must begin with a special token, so that
  // tokenizing it alone is the same as tokenizing it in place.
  if (!rendered_.empty() && rendered.starts_with(rendered_)) {
    const std::vector<int32_t> rest =
        tokenizer.Encode(std::string_view(rendered).substr(rendered_.size()), false, true);
    if (!rest.empty() && tokenizer.IsControl(rest[0])) {
      std::vector<int32_t> tokens = rendered_tokens_;
      tokens.insert(tokens.end(), rest.begin(), rest.end());
      rendered_ = rendered;
      return tokens;
    }
  }
  rendered_ = rendered;
  const std::string bos = SpecialText(tokenizer, tokenizer.bos());
  return tokenizer.Encode(StripDuplicateBos(rendered, tokenizer.add_bos(), bos), true, true);
}

Generation Conversation::Answer(const GenerateOptions& options) {
  const std::vector<int32_t> prompt = PromptTokens();
  rendered_tokens_ = prompt;
  Generation result;
  try {
    result = Generate(engine_, session_, prompt, options);
  } catch (...) {
    rendered_.clear();
    throw;
  }
  messages_.push_back(Json{{"role", "assistant"}, {"content", result.text}});
  rendered_ += result.text;
  rendered_tokens_.insert(rendered_tokens_.end(), result.tokens.begin(), result.tokens.end());
  // A stop text cut the answer inside a token: then text and tokens do not match.
  std::string spelt;
  for (const int32_t id : result.tokens)
    engine_.tokenizer().AppendPiece(id, options.special, &spelt);
  if (spelt != result.text) rendered_.clear();
  return result;
}

void Conversation::Save(const std::string& path) const {
  const std::string shown = Printable(path, 400);
  const std::string temporary = path + ".tmp";
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out << Json{{"format", "lutra-chat"}, {"messages", messages_}}.dump(
               2, ' ', false, Json::error_handler_t::replace)
        << '\n';
    out.flush();
    if (!out) Fail(ErrorCode::kIo, "%s: cannot write", shown.c_str());
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    Fail(ErrorCode::kIo, "%s: cannot write", shown.c_str());
  }
}

void Conversation::Load(const std::string& path) {
  const std::string shown = Printable(path, 400);
  std::ifstream in(path, std::ios::binary);
  if (!in) Fail(ErrorCode::kNotFound, "%s: cannot open", shown.c_str());
  std::string text;
  std::vector<char> part(1 << 16);
  while (in.read(part.data(), static_cast<std::streamsize>(part.size())), in.gcount() > 0) {
    text.append(part.data(), static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxChatFileBytes)
      Fail(ErrorCode::kResourceExhausted, "%s: larger than %zu bytes", shown.c_str(),
           kMaxChatFileBytes);
  }
  // Depth is bounded before the parser recurses.
  int depth = 0;
  const auto bounded = [&](int, Json::parse_event_t event, Json&) {
    if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start)
      ++depth;
    if (event == Json::parse_event_t::object_end || event == Json::parse_event_t::array_end)
      --depth;
    if (depth > 64) Fail(ErrorCode::kCorrupt, "%s: nested deeper than 64", shown.c_str());
    return true;
  };
  Json json;
  try {
    json = Json::parse(text, bounded);
  } catch (const Json::exception& e) {
    Fail(ErrorCode::kCorrupt, "%s: no chat file: %s", shown.c_str(), Printable(e.what()).c_str());
  }
  Json messages = json.is_object() && json.contains("messages") ? json["messages"] : json;
  if (!messages.is_array())
    Fail(ErrorCode::kCorrupt, "%s: no chat file: \"messages\" is no list", shown.c_str());
  for (const Json& m : messages) {
    if (!m.is_object() || !m.contains("role") || !m["role"].is_string() || !m.contains("content") ||
        !m["content"].is_string()) {
      Fail(ErrorCode::kCorrupt,
           "%s: no chat file: every message needs a \"role\" and a \"content\" text",
           shown.c_str());
    }
  }
  messages_ = std::move(messages);
  rendered_.clear();
}

}  // namespace lutra::cli
