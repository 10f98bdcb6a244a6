#include "server/output_parser.h"

#include <algorithm>
#include <optional>

#include "server/tool_syntax.h"

namespace lutra::server {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

}  // namespace

size_t PartialTag(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == tag.substr(0, n)) return n;
  }
  return 0;
}

OutputParser::OutputParser(OutputFormat format)
    : format_(std::move(format)),
      state_(format_.in_thought && !format_.reasoning.end.empty() ? State::kThought : State::kContent) {
  trim_ = state_ == State::kThought;
}

OutputParser::~OutputParser() = default;

void OutputParser::Emit(std::string_view text, OutputDelta* out) {
  std::string& to = state_ == State::kThought ? out->reasoning : out->content;
  if (trim_) {
    while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
    if (text.empty()) return;
    trim_ = false;
  }
  if (state_ != State::kThought && !text.empty()) shown_ = true;
  to.append(text);
}

void OutputParser::Feed(std::string_view text, OutputDelta* out) {
  held_.append(text);
  Advance(false, out);
}

void OutputParser::Finish(OutputDelta* out) { Advance(true, out); }

// Goes through what is held; leaves in held_ what is not decided.
void OutputParser::Advance(bool last, OutputDelta* out) {
  for (;;) {
    const std::string_view text = held_;
    if (state_ == State::kThought) {
      const std::string& end = format_.reasoning.end;
      const size_t at = text.find(end);
      if (at == std::string_view::npos) {
        // White space before the tag belongs to neither.
        size_t keep = last ? 0 : PartialTag(text, end);
        while (!last && keep < text.size() && IsSpace(text[text.size() - keep - 1])) ++keep;
        Emit(text.substr(0, text.size() - keep), out);
        held_.erase(0, held_.size() - keep);
        return;
      }
      size_t n = at;
      while (n > 0 && IsSpace(text[n - 1])) --n;
      Emit(text.substr(0, n), out);
      held_.erase(0, at + end.size());
      state_ = State::kContent;
      trim_ = true;
      continue;
    }
    if (state_ == State::kCall) {
      std::vector<ParsedCall> calls;
      const std::optional<size_t> used = format_.tools->Parse(text, format_.tool_names, last, &calls);
      for (ParsedCall& c : calls) {
        out->calls.push_back({n_calls_++, NewCallId(), std::move(c.name), std::move(c.arguments)});
      }
      if (used.has_value() && *used > 0) {
        held_.erase(0, *used);
        state_ = State::kContent;
        trim_ = true;
        continue;
      }
      if (used.has_value() && !last) return;
      // Not a call after all.
      state_ = State::kContent;
      trim_ = false;
      Emit(held_, out);
      held_.clear();
      return;
    }
    // Content: the next tag, if any.
    size_t first = std::string_view::npos, keep = 0;
    bool thought = false;
    const auto look = [&](const std::string& tag, bool is_thought) {
      const size_t at = text.find(tag);
      if (at < first) {
        first = at;
        thought = is_thought;
      }
      keep = std::max(keep, PartialTag(text, tag));
    };
    // Thoughts come before anything else only.
    if (!format_.reasoning.start.empty() && !shown_ && n_calls_ == 0) look(format_.reasoning.start, true);
    if (format_.tools != nullptr) {
      for (const std::string& tag : format_.tools->triggers()) {
        if (tag != "{") {
          look(tag, false);
        } else if (!shown_) {
          size_t at = 0;
          while (at < text.size() && IsSpace(text[at])) ++at;
          if (at < text.size() && text[at] == '{' && at < first) {
            first = at;
            thought = false;
          }
        }
      }
    }
    if (first == std::string_view::npos) {
      if (last) keep = 0;
      if (format_.tools != nullptr && !last) {
        // White space in front of calls is dropped with them.
        while (keep < text.size() && IsSpace(text[text.size() - keep - 1])) ++keep;
      }
      Emit(text.substr(0, text.size() - keep), out);
      held_.erase(0, held_.size() - keep);
      return;
    }
    size_t n = first;
    while (n > 0 && IsSpace(text[n - 1])) --n;
    Emit(text.substr(0, n), out);
    if (thought) {
      held_.erase(0, first + format_.reasoning.start.size());
      state_ = State::kThought;
      trim_ = true;
    } else {
      held_.erase(0, first);
      state_ = State::kCall;
    }
  }
}

}  // namespace lutra::server
