#include "models/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/utf8.h"

namespace lutra {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

constexpr bool IsPrintable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> character{};
  std::array<int16_t, 324> byte{};  // -1: stands for no byte
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& b : alphabet.byte) b = -1;
  uint16_t next = 0x100;
  for (uint16_t b = 0; b < 256; ++b) {
    const uint16_t c = IsPrintable(b) ? b : next++;
    alphabet.character[b] = c;
    alphabet.byte[c] = static_cast<int16_t>(b);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

uint32_t ByteToCharacter(uint8_t byte) { return kAlphabet.character[byte]; }

int CharacterToByte(uint32_t c) { return c < kAlphabet.byte.size() ? kAlphabet.byte[c] : -1; }

// Texts that are no tokens, while merges are read.
class ExtraSymbols {
 public:
  std::unordered_map<std::string, int32_t> ids;
};

int32_t BpeEncoder::SymbolOf(std::string_view text, ExtraSymbols* extras) {
  const int32_t id = vocab_.Find(text);
  if (id != kNoToken) return id;
  const auto next = static_cast<int32_t>(static_cast<size_t>(vocab_.size()) + extra_texts_.size());
  const auto [it, added] = extras->ids.emplace(text, next);
  if (added) extra_texts_.emplace_back(text);
  return it->second;
}

std::string_view BpeEncoder::SymbolText(int32_t symbol) const {
  return vocab_.Contains(symbol) ? vocab_.text(symbol)
                                 : extra_texts_[static_cast<size_t>(symbol - vocab_.size())];
}

size_t BpeEncoder::Slot(int32_t left, int32_t right) const {
  const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  const uint64_t h = key * 0x9E3779B97F4A7C15u;
  size_t i = (h ^ (h >> 32)) & (slots_.size() - 1);
  while (slots_[i] != kNone &&
         (merges_[slots_[i]].left != left || merges_[slots_[i]].right != right)) {
    i = (i + 1) & (slots_.size() - 1);
  }
  return i;
}

uint32_t BpeEncoder::RankOf(int32_t left, int32_t right) const { return slots_[Slot(left, right)]; }

BpeEncoder::BpeEncoder(const Vocab& vocab, const std::vector<std::string_view>& merges)
    : vocab_(vocab) {
  if (merges.size() > kMaxMerges) {
    Fail(ErrorCode::kResourceExhausted, "%zu merges, the limit (kMaxMerges) is %zu", merges.size(),
         kMaxMerges);
  }
  ExtraSymbols extras;
  for (unsigned b = 0; b < 256; ++b) {
    Utf8Append(ByteToCharacter(static_cast<uint8_t>(b)), &byte_text_[b]);
    byte_symbol_[b] = SymbolOf(byte_text_[b], &extras);
  }
  size_t capacity = 16;
  while (capacity < 2 * merges.size()) capacity *= 2;
  slots_.assign(capacity, kNone);
  merges_.reserve(merges.size());
  size_t malformed = 0, repeated = 0, unknown = 0;
  std::string joined;
  for (const std::string_view merge : merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size() ||
        merge.size() > kMaxTokenBytes) {
      ++malformed;
      continue;
    }
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    joined.assign(left).append(right);
    const Merge m = {SymbolOf(left, &extras), SymbolOf(right, &extras), SymbolOf(joined, &extras)};
    const size_t slot = Slot(m.left, m.right);
    if (slots_[slot] != kNone) {
      ++repeated;
      continue;
    }
    unknown += !vocab.Contains(m.joined);
    slots_[slot] = static_cast<uint32_t>(merges_.size());
    merges_.push_back(m);
  }
  if (malformed + repeated + unknown > 0) {
    Log(LogLevel::kWarning,
        "tokenizer.ggml.merges: %zu malformed and %zu repeated ones skipped, %zu make no token",
        malformed, repeated, unknown);
  }
}

void BpeEncoder::Encode(std::string_view text, std::vector<int32_t>* out) const {
  SplitText split;
  DecodeForSplit(text, &split);
  std::vector<uint32_t> ends;
  Split(*vocab_.pre()->splitter, split, &ends);
  Scratch scratch;
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    scratch.bytes.clear();
    for (uint32_t i = begin; i < end; ++i) Utf8Append(split.code_points[i], &scratch.bytes);
    EncodePiece(&scratch, out);
    begin = end;
  }
}

void BpeEncoder::EncodePiece(Scratch* scratch, std::vector<int32_t>* out) const {
  const std::string& bytes = scratch->bytes;
  if (vocab_.pre()->whole_word_first && bytes.size() <= vocab_.max_token_bytes()) {
    scratch->mapped.clear();
    for (const char b : bytes) scratch->mapped += byte_text_[static_cast<uint8_t>(b)];
    const int32_t id = vocab_.Find(scratch->mapped);
    if (id != kNoToken) {
      out->push_back(id);
      return;
    }
  }
  std::vector<Symbol>& symbols = scratch->symbols;
  symbols.clear();
  for (const char b : bytes) {
    const auto i = static_cast<uint32_t>(symbols.size());
    symbols.push_back({byte_symbol_[static_cast<uint8_t>(b)], i == 0 ? kNone : i - 1, i + 1});
  }
  symbols.back().next = kNone;

  // Entries are rank << 32 | left symbol: the least is the lowest rank, leftmost first. An entry
  // whose symbols have changed since names a merge that does not fit them any more.
  std::vector<uint64_t>& heap = scratch->heap;
  heap.clear();
  const auto entry = [&](uint32_t left) -> uint64_t {
    const uint32_t right = symbols[left].next;
    if (right == kNone) return UINT64_MAX;
    const uint32_t rank = RankOf(symbols[left].id, symbols[right].id);
    return rank == kNone ? UINT64_MAX : uint64_t{rank} << 32 | left;
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) {
    const uint64_t e = entry(i);
    if (e != UINT64_MAX) heap.push_back(e);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](uint32_t left) {
    const uint64_t e = left == kNone ? UINT64_MAX : entry(left);
    if (e == UINT64_MAX) return;
    heap.push_back(e);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t best = heap.back();
    heap.pop_back();
    const Merge& merge = merges_[best >> 32];
    const auto i = static_cast<uint32_t>(best);
    Symbol& left = symbols[i];
    if (left.id != merge.left || left.next == kNone || symbols[left.next].id != merge.right)
      continue;
    Symbol& right = symbols[left.next];
    left.id = merge.joined;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNone) symbols[left.next].previous = i;
    push(left.previous);
    push(i);
  }

  for (uint32_t i = 0; i != kNone; i = symbols[i].next) {
    const int32_t symbol = symbols[i].id;
    if (vocab_.Contains(symbol)) {
      out->push_back(symbol);
      continue;
    }
    // No token: what single bytes of the mapped text are tokens, the rest is dropped.
    const std::string_view piece = SymbolText(symbol);
    for (size_t k = 0; k < piece.size(); ++k) {
      const int32_t id = vocab_.Find(piece.substr(k, 1));
      if (id != kNoToken) out->push_back(id);
    }
  }
}

}  // namespace lutra
