// Byte-pair encoding over byte-level vocabularies.
// Source: tokenizer.ggml.model "gpt2" of GGUF; the byte alphabet is GPT-2's (bytes to printable
// characters).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/pretokenize.h"
#include "models/tokenizer/vocab.h"

namespace lutra {

// The character of each byte: the printable ones 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF are themselves,
// the other 68 are U+0100 and up in the order of the bytes.
uint32_t ByteToCharacter(uint8_t byte);
// The byte of a character, or -1 if it stands for none.
int CharacterToByte(uint32_t c);

class BpeEncoder {
 public:
  // Keeps a reference to `vocab`, which is a byte-pair one. A merge without a space, with an empty
  // side or longer than kMaxTokenBytes is skipped, of equal ones the first counts; both are logged.
  // Throws Error(kResourceExhausted) above kMaxMerges.
  BpeEncoder(const Vocab& vocab, const std::vector<std::string_view>& merges);

  // Appends the ids of `text`, any bytes, to *out: n log n in the text. text.size() < 2^30.
  // Thread-safe.
  void Encode(std::string_view text, std::vector<int32_t>* out) const;

 private:
  struct Merge {
    int32_t left, right, joined;  // symbols
  };
  struct Symbol {
    int32_t id;  // < 0: joined into the one before
    uint32_t previous, next;
  };
  struct Scratch {
    std::string bytes, mapped;
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;
  };

  // Symbols are token ids, and above them texts of merges that are no tokens.
  int32_t SymbolOf(std::string_view text, class ExtraSymbols* extras);
  std::string_view SymbolText(int32_t symbol) const;
  size_t Slot(int32_t left, int32_t right) const;
  uint32_t RankOf(int32_t left, int32_t right) const;
  void EncodePiece(Scratch* scratch, std::vector<int32_t>* out) const;

  const Vocab& vocab_;
  std::array<std::string, 256> byte_text_;  // the character of a byte in UTF-8
  std::array<int32_t, 256> byte_symbol_;
  std::vector<std::string> extra_texts_;  // of symbols from vocab.size() on
  std::vector<Merge> merges_;             // by rank
  std::vector<uint32_t> slots_;           // open addressing over (left, right): rank, or UINT32_MAX
};

}  // namespace lutra
