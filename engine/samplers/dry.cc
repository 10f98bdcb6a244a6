// dry ("don't repeat yourself"): lowers the logit of every token that would make a repeated
// sequence longer, by multiplier * base^(length - allowed_length). Breaker strings bound what
// counts as one sequence.
// Source: p-e-w 2024, text-generation-webui pull request 5677; restart sequences as llama.cpp.
#include <algorithm>
#include <utility>

#include "engine/float_math.h"
#include "engine/limits.h"
#include "engine/sampler_stage.h"
#include "engine/samplers/token_history.h"
#include "kernels/base/error.h"

namespace lutra {
namespace {

// Breaker strings as token sequences. A token whose text contains the string is one by itself; a
// token whose text ends with a proper prefix of it is a head, followed by the tokens of the rest.
class Breakers {
 public:
  Breakers(const std::vector<std::string>& strings, const TokenTexts& texts)
      : single_(texts.size(), false) {
    std::string text;
    for (const std::string& whole : strings) {
      const std::string_view breaker = std::string_view(whole).substr(0, kMaxDryBreakerBytes);
      const size_t first_tail = tails_.size();  // tail of the prefix with n bytes: n - 1 behind
      for (size_t n = 1; n < breaker.size(); ++n) {
        tails_.push_back(texts.Tokenize(breaker.substr(n)));
        if (tails_.back().size() > kMaxDryBreakerTokens) tails_.back().resize(kMaxDryBreakerTokens);
      }
      for (size_t i = 0; i < texts.size(); ++i) {
        const int32_t id = static_cast<int32_t>(i);
        texts.TokenText(id, &text);
        if (text.find(breaker) != std::string::npos) {
          single_[i] = true;
          continue;
        }
        for (size_t n = 1; n < breaker.size() && n <= text.size(); ++n) {
          if (std::string_view(text).substr(text.size() - n) == breaker.substr(0, n) &&
              !tails_[first_tail + n - 1].empty()) {
            heads_.emplace_back(id, first_tail + n - 1);
          }
        }
      }
    }
    std::sort(heads_.begin(), heads_.end());
  }

  bool IsSingle(int32_t token) const {
    return static_cast<size_t>(token) < single_.size() && single_[static_cast<size_t>(token)];
  }

  // The number of tokens behind the last breaker sequence in `back` (last token first), all of
  // them if there is none.
  size_t LengthBehindLast(const std::vector<int32_t>& back, size_t n) const {
    for (size_t i = 0; i < n; ++i) {
      bool found = IsSingle(back[i]);
      size_t longest = 0;
      auto head = std::lower_bound(heads_.begin(), heads_.end(), std::pair(back[i], size_t{0}));
      for (; head != heads_.end() && head->first == back[i]; ++head) {
        const std::vector<int32_t>& tail = tails_[head->second];
        if (tail.size() > i) continue;
        bool match = true;
        for (size_t j = 0; match && j < tail.size(); ++j) match = tail[j] == back[i - 1 - j];
        if (!match) continue;
        found = true;
        longest = std::max(longest, tail.size());
      }
      if (found) return i - longest;
    }
    return n;
  }

 private:
  std::vector<bool> single_;
  std::vector<std::vector<int32_t>> tails_;
  std::vector<std::pair<int32_t, size_t>> heads_;  // token and index in tails_, sorted
};

class Dry : public SamplerStage {
 public:
  Dry(const SamplingParams& params, size_t n_vocab, std::shared_ptr<const Breakers> breakers)
      : multiplier_(params.dry_multiplier),
        base_(static_cast<double>(params.dry_base)),
        allowed_(static_cast<size_t>(params.dry_allowed_length)),
        max_exponent_(base_ > 1.0 ? 88.72 / Log(base_) : 0.0),
        breakers_(std::move(breakers)),
        history_(static_cast<size_t>(params.dry_penalty_last_n)),
        back_(static_cast<size_t>(params.dry_penalty_last_n)),
        match_(static_cast<size_t>(params.dry_penalty_last_n)),
        lengths_(n_vocab) {
    touched_.reserve(back_.size());
  }

  void Apply(Candidates* candidates) override {
    if (!FindRepetitions()) return;
    if (candidates->dense()) {
      const std::span<float> logits = candidates->MutableLogits();
      for (const int32_t token : touched_) {
        float& logit = logits[static_cast<size_t>(token)];
        if (IsCandidateLogit(logit)) logit = Penalize(logit, token);
      }
    } else {
      for (Candidate& x : candidates->List()) x.logit = Penalize(x.logit, x.id);
      candidates->MarkUnsorted();
    }
    for (const int32_t token : touched_) lengths_[static_cast<size_t>(token)] = 0;
    touched_.clear();
  }

  void Accept(int32_t token) override { history_.Push(token); }
  void Reset() override { history_.Clear(); }
  std::unique_ptr<SamplerStage> Clone() const override {
    auto copy = std::make_unique<Dry>(*this);
    copy->touched_.reserve(back_.size());
    return copy;
  }

 private:
  // Fills lengths_ and touched_ with the tokens to penalize; false if there are none.
  bool FindRepetitions() {
    const size_t n = history_.size();
    if (n <= allowed_) return false;
    for (size_t i = 0; i < n; ++i) back_[i] = history_.Back(i);
    const size_t limit = breakers_->LengthBehindLast(back_, n);
    if (limit < allowed_) return false;
    // Z algorithm over the reversed history: match_[i] is how many tokens before and with the i-th
    // last one equal the end of the sequence. [left, right) is the match that reaches farthest.
    size_t left = 0, right = 0;
    for (size_t i = 1; i < n; ++i) {
      size_t m = i < right ? std::min<size_t>(match_[i - left], right - i) : 0;
      while (i + m < n && back_[m] == back_[i + m]) ++m;
      match_[i] = static_cast<uint32_t>(m);
      if (i + m > right) {
        left = i;
        right = i + m;
      }
      const size_t length = std::min(m, limit);
      const int32_t next = back_[i - 1];
      if (length == 0 || length < allowed_ || breakers_->IsSingle(next)) continue;
      uint32_t& longest = lengths_[static_cast<size_t>(next)];
      if (longest == 0) touched_.push_back(next);
      longest = std::max(longest, static_cast<uint32_t>(length));
    }
    return !touched_.empty();
  }

  float Penalize(float logit, int32_t token) const {
    const uint32_t length = lengths_[static_cast<size_t>(token)];
    if (length == 0) return logit;
    double exponent = static_cast<double>(length - allowed_);
    if (base_ > 1.0) exponent = std::min(exponent, max_exponent_);
    const float penalty = multiplier_ * static_cast<float>(Pow(base_, exponent));
    return ClampLogit(logit - penalty);
  }

  float multiplier_;
  double base_;
  size_t allowed_;
  double max_exponent_;                       // beyond it base^exponent overflows float
  std::shared_ptr<const Breakers> breakers_;  // the same for all clones; costly to build
  TokenHistory history_;
  std::vector<int32_t> back_;  // the history, last token first
  std::vector<uint32_t> match_;
  std::vector<uint32_t> lengths_;  // [n_vocab], 0 outside of Apply
  std::vector<int32_t> touched_;   // tokens whose length is not 0
};

}  // namespace

std::unique_ptr<SamplerStage> MakeDry(const StageContext& context) {
  const SamplingParams& params = context.params;
  if (params.dry_multiplier == 0.0f || params.dry_base < 1.0f || params.dry_penalty_last_n <= 0) {
    return nullptr;
  }
  if (context.texts == nullptr) {
    Fail(ErrorCode::kInvalidArgument, "dry_multiplier needs a vocabulary, and there is none");
  }
  return std::make_unique<Dry>(
      params, context.n_vocab,
      std::make_shared<const Breakers>(params.dry_sequence_breakers, *context.texts));
}

}  // namespace lutra
