#include "engine/grammar/grammar_constraint.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace lutra {
namespace {

constexpr size_t kMaxMasks = 2048;     // 16 KiB each for a vocabulary of 128 thousand
constexpr size_t kMinForcedBytes = 2;  // shorter texts are not worth tokenizing
constexpr size_t kMaxForcedBytes = 1024;

}  // namespace

TokenTree::TokenTree(const Tokenizer& tokenizer, size_t n_vocab, const std::vector<int32_t>& marks)
    : n_vocab_(n_vocab), is_eog_(n_vocab) {
  std::vector<int32_t> order;
  offsets_.push_back(0);
  for (size_t i = 0; i < n_vocab; ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (tokenizer.IsValid(id)) {
      if (tokenizer.IsEog(id)) {
        is_eog_[i] = true;
        eog_.push_back(id);
      } else {
        tokenizer.AppendPiece(id, std::find(marks.begin(), marks.end(), id) != marks.end(),
                              &arena_);
      }
    }
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
    if (offsets_[i + 1] > offsets_[i] && offsets_[i + 1] - offsets_[i] < 1000) order.push_back(id);
  }
  for (const int32_t id : marks) {
    if (!bytes(id).empty()) marks_.push_back(id);
  }
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const std::string_view x = bytes(a), y = bytes(b);
    return x != y ? x < y : a < b;
  });
  std::vector<uint32_t> open;  // the nodes of the last token's bytes
  std::string_view last;
  for (const int32_t id : order) {
    const std::string_view text = bytes(id);
    size_t same = 0;
    while (same < std::min(last.size(), text.size()) && last[same] == text[same]) ++same;
    for (size_t d = same; d < open.size(); ++d)
      nodes_[open[d]].end = static_cast<uint32_t>(nodes_.size());
    open.resize(same);
    for (size_t d = same; d < text.size(); ++d) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, 0, 0, static_cast<uint8_t>(text[d]), static_cast<uint16_t>(d + 1)});
    }
    Node& node = nodes_[open.back()];
    if (node.n_tokens++ == 0) node.tokens = static_cast<uint32_t>(token_ids_.size());
    token_ids_.push_back(id);
    last = text;
    max_depth_ = std::max(max_depth_, text.size());
  }
  for (const uint32_t node : open) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
}

CompiledGrammar::CompiledGrammar(std::string_view gbnf, std::shared_ptr<const TokenTree> tree)
    : tree_(std::move(tree)),
      automaton_(std::make_shared<Grammar>(gbnf)),
      path_(tree_->max_depth() + 1) {}

CompiledGrammar::State CompiledGrammar::AdvanceText(State state, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  for (const char c : bytes) {
    if (state == GrammarAutomaton::kDead) break;
    state = automaton_.Step(state, static_cast<uint8_t>(c));
  }
  return state;
}

CompiledGrammar::State CompiledGrammar::Advance(State state, int32_t token) {
  const std::string_view bytes = tree_->bytes(token);
  return bytes.empty() ? GrammarAutomaton::kDead : AdvanceText(state, bytes);
}

bool CompiledGrammar::can_end(State state) {
  const std::lock_guard lock(mutex_);
  return automaton_.can_end(state);
}

bool CompiledGrammar::only_end(State state) {
  const std::lock_guard lock(mutex_);
  return automaton_.only_end(state);
}

size_t CompiledGrammar::n_states() {
  const std::lock_guard lock(mutex_);
  return automaton_.n_states();
}

std::shared_ptr<const TokenMask> CompiledGrammar::Mask(State state) {
  const std::lock_guard lock(mutex_);
  ++masks_asked_;
  if (const auto it = masks_.find(state); it != masks_.end()) return it->second;
  ++masks_made_;
  auto mask = std::make_shared<TokenMask>(tree_->n_vocab());
  const auto& nodes = tree_->nodes();
  path_[0] = state;
  for (uint32_t i = 0; i < nodes.size();) {
    const TokenTree::Node& node = nodes[i];
    const State next = automaton_.Step(path_[node.depth - size_t{1}], node.byte);
    if (next == GrammarAutomaton::kDead) {
      i = node.end;
      continue;
    }
    path_[node.depth] = next;
    for (uint16_t k = 0; k < node.n_tokens; ++k) mask->Allow(tree_->token_ids()[node.tokens + k]);
    ++i;
  }
  if (automaton_.can_end(state)) {
    for (const int32_t id : tree_->eog()) mask->Allow(id);
  }
  if (masks_.size() >= kMaxMasks) masks_.clear();
  masks_[state] = mask;
  return mask;
}

std::string CompiledGrammar::ForcedText(State state, size_t limit) {
  const std::lock_guard lock(mutex_);
  std::string text;
  while (text.size() < limit) {
    const int byte = automaton_.OnlyByte(state);
    if (byte < 0) break;
    text += static_cast<char>(byte);
    state = automaton_.Step(state, static_cast<uint8_t>(byte));
  }
  return text;
}

std::shared_ptr<CompiledGrammar> GrammarCache::Get(const std::string& gbnf) {
  const std::lock_guard lock(mutex_);
  for (auto it = grammars_.begin(); it != grammars_.end(); ++it) {
    if (it->first != gbnf) continue;
    // One that has learned too much starts again: its memory is bounded by its states.
    constexpr size_t kTooManyStates = 1 << 15;
    if (it->second->n_states() > kTooManyStates) {
      grammars_.erase(it);
      break;
    }
    grammars_.splice(grammars_.begin(), grammars_, it);
    return grammars_.front().second;
  }
  auto compiled = std::make_shared<CompiledGrammar>(gbnf, tree_);
  grammars_.emplace_front(gbnf, compiled);
  if (grammars_.size() > kMaxGrammars) grammars_.pop_back();
  return compiled;
}

namespace {

class BehindTag final : public GrammarGate {
 public:
  explicit BehindTag(std::string tag) : tag_(std::move(tag)) {}
  bool Feed(std::string_view bytes, std::string* begun) override {
    tail_.append(bytes);
    const size_t at = tail_.find(tag_);
    if (at == std::string::npos) {
      if (tail_.size() >= tag_.size()) tail_.erase(0, tail_.size() - tag_.size() + 1);
      return false;
    }
    const size_t from = tail_.find_first_not_of("\n ", at + tag_.size());
    *begun = from == std::string::npos ? "" : tail_.substr(from);
    return true;
  }
  bool optional() const override { return false; }

 private:
  const std::string tag_;
  std::string tail_;  // the last bytes, in which the tag may have begun
};

}  // namespace

std::unique_ptr<GrammarGate> GateBehind(std::string tag) {
  return std::make_unique<BehindTag>(std::move(tag));
}

GrammarConstraint::GrammarConstraint(std::shared_ptr<CompiledGrammar> grammar,
                                     const Tokenizer* tokenizer, std::unique_ptr<GrammarGate> gate)
    : grammar_(std::move(grammar)),
      tokenizer_(tokenizer),
      gate_(std::move(gate)),
      state_(grammar_->start()),
      active_(gate_ == nullptr) {}

bool GrammarConstraint::Allows(int32_t token) {
  if (!active_) return true;
  if (grammar_->tree().is_eog(token)) return grammar_->can_end(state_);
  return grammar_->Advance(state_, token) != GrammarAutomaton::kDead;
}

const TokenMask& GrammarConstraint::Mask() {
  mask_ = grammar_->Mask(state_);
  return *mask_;
}

void GrammarConstraint::Accept(int32_t token) {
  if (grammar_->tree().is_eog(token)) {
    done_ = true;
    return;
  }
  std::string_view bytes = grammar_->tree().bytes(token);
  if (!active_) {
    // A tag may be a control token, which has no bytes of its own in the tree.
    std::string special;
    if (bytes.empty() && tokenizer_ != nullptr) {
      tokenizer_->AppendPiece(token, true, &special);
      bytes = special;
    }
    std::string begun;
    if (!gate_->Feed(bytes, &begun)) return;
    const GrammarAutomaton::State next = grammar_->AdvanceText(state_, begun);
    if (next != GrammarAutomaton::kDead)
      state_ = next;
    else if (gate_->optional())
      return;
    active_ = true;
    done_ = grammar_->only_end(state_);
    return;
  }
  const GrammarAutomaton::State next = grammar_->AdvanceText(state_, bytes);
  if (next == GrammarAutomaton::kDead || bytes.empty()) {
    Fail(ErrorCode::kInternal, "a token was taken that the grammar does not allow");
  }
  state_ = next;
  done_ = grammar_->only_end(state_);
}

std::vector<int32_t> GrammarConstraint::Forced() {
  if (tokenizer_ == nullptr || !active_ || done_) return {};
  const std::string text = grammar_->ForcedText(state_, kMaxForcedBytes);
  if (text.size() < kMinForcedBytes) return {};
  // Marks are tokens of their own; what stands between them is text.
  std::vector<int32_t> tokens;
  bool ends_with_mark = false;
  for (size_t at = 0; at < text.size();) {
    size_t next = text.size();
    int32_t mark = kNoToken;
    for (const int32_t id : grammar_->tree().marks()) {
      const size_t found = text.find(grammar_->tree().bytes(id), at);
      if (found < next) next = found, mark = id;
    }
    const std::vector<int32_t> plain =
        tokenizer_->Encode(std::string_view(text).substr(at, next - at), false, false);
    tokens.insert(tokens.end(), plain.begin(), plain.end());
    ends_with_mark = mark != kNoToken;
    if (ends_with_mark) {
      tokens.push_back(mark);
      next += grammar_->tree().bytes(mark).size();
    }
    at = next;
  }
  // As the model would cut it: the last token could go on beyond what is certain. Vocabularies that put a space in front spell
  // another text, and are left to the model.
  std::string spelt;
  for (const int32_t id : tokens) {
    const std::string_view bytes = grammar_->tree().bytes(id);
    if (bytes.empty()) return {};
    spelt += bytes;
  }
  if (spelt != text) return {};
  const GrammarAutomaton::State end = grammar_->AdvanceText(state_, text);
  if (!grammar_->only_end(end) && !tokens.empty() && !ends_with_mark) tokens.pop_back();
  return tokens;
}

}  // namespace lutra
