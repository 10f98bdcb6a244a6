// The tokens that may still be drawn, as the stages of a sampler see them. Two forms:
//   dense  one logit for every token id, nothing removed yet. Stages that edit the logits of a few
//          tokens run on this form without touching the others.
//   list   (id, logit) pairs of the tokens that are left.
// A chain starts dense and goes over to the list when a stage first removes or reorders tokens.
// A logit of NaN or -infinity means that the token is no candidate: it never enters the list. A
// logit of +infinity counts as FLT_MAX. Better means a greater logit and, among equals, the lower
// id. One thread at a time. Memory is taken in the constructor only.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/base/aligned.h"

namespace lutra {

struct Candidate {
  int32_t id;
  float logit;  // finite
  float p;      // see Candidates::Weights() and Softmax(); stale after any later change
};

inline bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// A finite logit near `x`, which may have overflowed.
inline float ClampLogit(float x) { return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x; }

inline bool IsCandidateLogit(float x) { return x >= -FLT_MAX; }  // false for NaN

// A set of token ids, such as what a grammar allows next.
class TokenMask {
 public:
  // Allows nothing.
  explicit TokenMask(size_t n_vocab) : words_((n_vocab + 63) / 64), n_vocab_(n_vocab) {}

  void Allow(int32_t id) { words_[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64); }
  bool Allows(int32_t id) const {
    return (words_[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
  }
  void Clear() { words_.assign(words_.size(), 0); }
  size_t n_vocab() const { return n_vocab_; }
  // Bit i % 64 of word i / 64 is token i.
  std::span<const uint64_t> words() const { return words_; }

 private:
  std::vector<uint64_t> words_;
  size_t n_vocab_;
};

class Candidates {
 public:
  explicit Candidates(size_t n_vocab);

  // Begins a draw: dense, over `logits` [n_vocab], which must stay as they are until the draw is
  // done. Tokens that `mask` (may be null) does not allow are no candidates.
  void Start(std::span<const float> logits, const TokenMask* mask);

  size_t n_vocab() const { return n_vocab_; }
  bool dense() const { return dense_; }
  // Dense form only. The first call of a draw copies the logits.
  std::span<float> MutableLogits();
  // From the list back to the dense form: undoes removals, not edits of logits.
  void BackToDense() { dense_ = true; }

  // The list; the dense form becomes one, in order of ids. Throws Error if there is no
  // candidate at all (see Sampler::Sample), as all functions below do; otherwise no function
  // empties the list.
  std::span<Candidate> List();
  size_t size() { return List().size(); }
  // True if the list is known to be in order, best first.
  bool sorted() const { return !dense_ && sorted_; }
  // To be called after changing logits of the list, unless that kept their order.
  void MarkUnsorted() { sorted_ = false; }

  Candidate Best();
  // Mean and population standard deviation of the logits.
  void MeanAndDeviation(double* mean, double* deviation);

  void KeepOnlyBest();
  void KeepBest(size_t k);          // the k >= 1 best ones, sorted, unless all are kept
  void KeepAtLeast(float minimum);  // logit >= minimum, order unchanged; minimum <= Best().logit
  void Truncate(size_t n);          // the first n >= 1 of the list
  void SortBest(size_t k);          // brings the k best ones to the front of the list, in order
  // Removes every candidate x of the list for which drop(x); must leave one.
  template <class Drop>
  void RemoveIf(const Drop& drop);
  // Sorts by the distance of the logit to `center` (equals: better first) and keeps the shortest
  // prefix of at least `min_keep` candidates whose p sum up to at least `mass`, or to more than it
  // if `exceed`. p is from Weights(). `by_rank` says that center is the greatest logit.
  void KeepMass(double center, double mass, bool exceed, size_t min_keep, bool by_rank);

  struct Totals {
    float max;   // the greatest logit
    double sum;  // of e^(logit - max) over all candidates
  };
  // Of either form, which stays as it is.
  Totals Sums();
  // Makes the list and sets its p = e^(logit - max), as float.
  Totals Weights();
  // The same, p then divided by the sum.
  Totals Softmax();
  // Entropy in nats of the list, given what Weights() returned for it.
  double Entropy(const Totals& totals);

 private:
  void Push(int32_t id, float logit) {
    list_[size_++] = {id, logit > FLT_MAX ? FLT_MAX : logit, 0.0f};
  }
  // Fill the list with the tokens of the dense form with logits above / not below `bound`.
  void GatherAbove(float bound);
  void GatherAtLeast(float bound);
  void BecomeList(bool sorted);
  [[noreturn]] void FailEmpty() const;

  size_t n_vocab_;
  const float* logits_ = nullptr;  // the caller's, or copy_
  bool masked_ = false;
  bool dense_ = true;
  bool sorted_ = false;
  size_t size_ = 0;
  AlignedArray<float> copy_;
  AlignedArray<Candidate> list_;
};

template <class Drop>
void Candidates::RemoveIf(const Drop& drop) {
  const std::span<Candidate> list = List();
  size_t n = 0;
  for (const Candidate& x : list) {
    if (!drop(x)) list_[n++] = x;
  }
  Truncate(n);
}

}  // namespace lutra
