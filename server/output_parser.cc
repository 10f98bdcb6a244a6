#include "server/output_parser.h"

#include <algorithm>

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
      state_(format_.in_thought && !format_.reasoning.end.empty() ? State::kThought
                                                                  : State::kContent) {
  trim_ = state_ == State::kThought;
}

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

const std::string* OutputParser::CallText() const {
  return state_ == State::kCall && (call_known_ || format_.syntax->IsCall(held_)) ? &held_
                                                                                  : nullptr;
}

// False if more text is needed.
bool OutputParser::ReadCalls(bool last, OutputDelta* out) {
  using Status = CallReader::Status;
  if (reader_ == nullptr) {
    reader_ = format_.syntax->NewReader(*format_.tools);
    call_known_ = false;
    pieces_.clear();
  }
  size_t used = 0;
  const Status status = reader_->Read(held_, last, &pieces_, &used);
  call_known_ = call_known_ || !pieces_.empty();
  if (status == Status::kDone || format_.calls_hold) {
    for (CallPiece& piece : pieces_) {
      if (!piece.name.empty())
        out->calls.push_back({n_calls_++, NewCallId(), std::move(piece.name), ""});
      if (!piece.arguments.empty())
        out->calls.push_back({n_calls_ - 1, "", "", std::move(piece.arguments)});
    }
    pieces_.clear();
  }
  if (status == Status::kMore) return false;
  reader_.reset();
  state_ = State::kContent;
  trim_ = status == Status::kDone;
  if (status == Status::kDone) {
    held_.erase(0, used);
    return true;
  }
  // Not a call after all, or one that was given out and ends too early.
  if (!format_.calls_hold || !call_known_) Emit(held_, out);
  held_.clear();
  return false;
}

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
      if (ReadCalls(last, out)) continue;
      return;
    }
    // Content: the next tag, if any.
    size_t first = std::string_view::npos, keep = 0;
    bool thought = false;
    const auto look = [&](std::string_view tag, bool is_thought) {
      const size_t at = text.find(tag);
      if (at < first) {
        first = at;
        thought = is_thought;
      }
      keep = std::max(keep, PartialTag(text, tag));
    };
    // Thoughts come before anything else only.
    if (!format_.reasoning.start.empty() && !shown_ && n_calls_ == 0)
      look(format_.reasoning.start, true);
    if (format_.syntax != nullptr) {
      for (const std::string_view tag : format_.syntax->triggers()) {
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
      if (format_.syntax != nullptr && !last) {
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
