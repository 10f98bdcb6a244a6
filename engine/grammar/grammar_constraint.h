// Grammars as constraints on tokens: the vocabulary as a tree of bytes, and the tokens a state allows, remembered.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/constraint.h"
#include "engine/grammar/automaton.h"
#include "models/tokenizer/tokenizer.h"

namespace lutra {

// The tokens of a vocabulary in the order of their bytes, as a tree. Immutable; shared by threads.
class TokenTree {
 public:
  // Control tokens are no part of it but for `marks`, which stand for their texts.
  TokenTree(const Tokenizer& tokenizer, size_t n_vocab, const std::vector<int32_t>& marks = {});

  struct Node {
    uint32_t end;     // the first node that is not below this one
    uint32_t tokens;  // where its tokens begin in token_ids()
    uint16_t n_tokens;
    uint8_t byte;
    uint16_t depth;  // bytes up to and with this one
  };
  const std::vector<Node>& nodes() const { return nodes_; }  // a node comes before those below it
  const std::vector<int32_t>& token_ids() const { return token_ids_; }
  const std::vector<int32_t>& eog() const { return eog_; }
  size_t n_vocab() const { return n_vocab_; }
  size_t max_depth() const { return max_depth_; }
  std::string_view bytes(int32_t token) const {
    const size_t t = static_cast<size_t>(token);
    return std::string_view(arena_).substr(offsets_[t], offsets_[t + 1] - offsets_[t]);
  }
  const std::vector<int32_t>& marks() const { return marks_; }
  bool is_eog(int32_t token) const { return is_eog_[static_cast<size_t>(token)]; }

 private:
  size_t n_vocab_, max_depth_ = 0;
  std::vector<Node> nodes_;
  std::vector<int32_t> token_ids_, eog_, marks_;
  std::string arena_;
  std::vector<uint32_t> offsets_;
  std::vector<bool> is_eog_;
};

// A grammar with everything learned about it while it ran. Shared by all sequences that use it; a lock is held for a step.
class CompiledGrammar {
 public:
  // Throws what Grammar's constructor throws.
  CompiledGrammar(std::string_view gbnf, std::shared_ptr<const TokenTree> tree);

  using State = GrammarAutomaton::State;
  State start() const { return automaton_.start(); }
  // kDead if the token may not come.
  State Advance(State state, int32_t token);
  State AdvanceText(State state, std::string_view bytes);
  bool can_end(State state);
  bool only_end(State state);
  // The tokens that may come. Shared: valid as long as the pointer lives.
  std::shared_ptr<const TokenMask> Mask(State state);
  // Bytes that must come next, at most `limit`.
  std::string ForcedText(State state, size_t limit);
  const TokenTree& tree() const { return *tree_; }
  size_t n_states();
  // Masks made and asked for, in all.
  uint64_t masks_made() const { return masks_made_; }
  uint64_t masks_asked() const { return masks_asked_; }

 private:
  std::shared_ptr<const TokenTree> tree_;
  std::mutex mutex_;
  GrammarAutomaton automaton_;
  std::unordered_map<State, std::shared_ptr<const TokenMask>> masks_;
  std::vector<State> path_;
  std::atomic<uint64_t> masks_made_{0}, masks_asked_{0};
};

// The compiled grammars used last, by their text. Thread-safe.
class GrammarCache {
 public:
  explicit GrammarCache(std::shared_ptr<const TokenTree> tree) : tree_(std::move(tree)) {}
  // Throws what Grammar's constructor throws.
  std::shared_ptr<CompiledGrammar> Get(const std::string& gbnf);

 private:
  static constexpr size_t kMaxGrammars = 32;
  std::shared_ptr<const TokenTree> tree_;
  std::mutex mutex_;
  std::list<std::pair<std::string, std::shared_ptr<CompiledGrammar>>> grammars_;  // last used first
};

// Watches text that is free and says where the part begins that a grammar governs. For one sequence; one thread at a time.
class GrammarGate {
 public:
  virtual ~GrammarGate() = default;
  // Takes what was written; true once the grammar's part has begun, with its text so far in *begun.
  virtual bool Feed(std::string_view bytes, std::string* begun) = 0;
  // What happens if the grammar does not allow `begun`: true, all stays free and the gate is fed on; false, the grammar begins behind it.
  virtual bool optional() const = 0;
};

// A gate behind the first `tag`; white space that follows it in the same token belongs to nobody.
std::unique_ptr<GrammarGate> GateBehind(std::string tag);

// For one sequence. With a `gate` the text in front of it is free.
class GrammarConstraint final : public TokenConstraint {
 public:
  // `tokenizer`, if not null, turns bytes that must come into tokens, which are then not computed. It must outlive this.
  GrammarConstraint(std::shared_ptr<CompiledGrammar> grammar, const Tokenizer* tokenizer,
                    std::unique_ptr<GrammarGate> gate = nullptr);

  bool active() const override { return active_; }
  bool Allows(int32_t token) override;
  const TokenMask& Mask() override;
  void Accept(int32_t token) override;
  bool done() const override { return done_; }
  std::vector<int32_t> Forced() override;

 private:
  std::shared_ptr<CompiledGrammar> grammar_;
  const Tokenizer* tokenizer_;
  std::unique_ptr<GrammarGate> gate_;
  GrammarAutomaton::State state_;
  bool active_, done_ = false;
  std::shared_ptr<const TokenMask> mask_;
};

}  // namespace lutra
