#include "models/tokenizer/spm.h"

#include <algorithm>
#include <string>

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

struct Symbol {
  uint32_t begin;
  uint32_t length;  // 0: joined into the one before
  uint32_t previous, next;
};

struct Candidate {
  float score;
  uint32_t left;    // index of the left symbol
  uint32_t length;  // of both together

  // Heap order: the best one is the greatest.
  bool operator<(const Candidate& other) const {
    return score < other.score || (score == other.score && left > other.left);
  }
};

// A symbol's bytes by its first one alone: a stray continuation byte counts as a symbol.
size_t LengthByLead(uint8_t lead) {
  return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

}  // namespace

SpmEncoder::SpmEncoder(const Vocab& vocab) : vocab_(vocab) {
  size_t missing = 0;
  for (int b = 0; b < 256; ++b) {
    int32_t id = vocab.Find(Format("<0x%02X>", static_cast<unsigned>(b)));
    if (id == kNoToken) {
      const char byte = static_cast<char>(b);
      id = vocab.Find({&byte, 1});
    }
    if (id == kNoToken) {
      ++missing;
      id = vocab.special(SpecialToken::kUnknown);
    }
    byte_token_[b] = id;
  }
  if (missing > 0) {
    Log(LogLevel::kWarning,
        "%zu bytes have no token in the vocabulary: they become the unknown token, if any",
        missing);
  }
}

void SpmEncoder::Encode(std::string_view text, bool space_prefix, std::vector<int32_t>* out) const {
  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2 + 3);
  if (space_prefix) escaped += "\xE2\x96\x81";
  for (const char c : text) {
    if (c == ' ') {
      escaped += "\xE2\x96\x81";
    } else {
      escaped += c;
    }
  }

  std::vector<Symbol> symbols;
  symbols.reserve(escaped.size());
  for (size_t i = 0; i < escaped.size();) {
    const size_t n = std::min(LengthByLead(static_cast<uint8_t>(escaped[i])), escaped.size() - i);
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({static_cast<uint32_t>(i), static_cast<uint32_t>(n),
                       index == 0 ? kNone : index - 1, index + 1});
    i += n;
  }
  if (symbols.empty()) return;
  symbols.back().next = kNone;

  const std::string_view all = escaped;
  std::vector<Candidate> heap;
  const auto candidate = [&](uint32_t left, Candidate* result) {
    const uint32_t right = symbols[left].next;
    if (right == kNone) return false;
    const uint32_t length = symbols[left].length + symbols[right].length;
    if (length > vocab_.max_token_bytes()) return false;
    const int32_t id = vocab_.Find(all.substr(symbols[left].begin, length));
    if (id == kNoToken) return false;
    *result = {vocab_.score(id), left, length};
    return true;
  };
  Candidate c;
  for (uint32_t i = 0; i < symbols.size(); ++i) {
    if (candidate(i, &c)) heap.push_back(c);
  }
  std::make_heap(heap.begin(), heap.end());
  const auto push = [&](uint32_t left) {
    if (left == kNone || !candidate(left, &c)) return;
    heap.push_back(c);
    std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    if (left.length == 0 || left.next == kNone) continue;
    Symbol& right = symbols[left.next];
    if (left.length + right.length != best.length) continue;  // one of them has grown since
    left.length = best.length;
    left.next = right.next;
    right.length = 0;
    if (left.next != kNone) symbols[left.next].previous = best.left;
    push(left.previous);
    push(best.left);
  }

  for (uint32_t i = 0; i != kNone; i = symbols[i].next) {
    const std::string_view piece = all.substr(symbols[i].begin, symbols[i].length);
    const int32_t id = vocab_.Find(piece);
    if (id != kNoToken) {
      out->push_back(id);
      continue;
    }
    for (const char byte : piece) {
      const int32_t token = byte_token_[static_cast<uint8_t>(byte)];
      if (token != kNoToken) out->push_back(token);
    }
  }
}

}  // namespace lutra
