#include "engine/candidates.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/float_math.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace lutra {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();
// Logits are scanned in blocks: few hold anything above the bound, and the test of a whole block
// is a handful of vector instructions.
constexpr size_t kBlock = 32;

// True if any of the kBlock values is above `bound`; NaN is not.
inline bool AnyAbove(const float* x, float bound) {
  int32_t n = 0;
  for (size_t i = 0; i < kBlock; ++i) n += x[i] > bound ? 1 : 0;
  return n != 0;
}

inline bool AnyAtLeast(const float* x, float bound) {
  int32_t n = 0;
  for (size_t i = 0; i < kBlock; ++i) n += x[i] >= bound ? 1 : 0;
  return n != 0;
}

}  // namespace

Candidates::Candidates(size_t n_vocab) : n_vocab_(n_vocab), copy_(n_vocab), list_(n_vocab) {}

void Candidates::Start(std::span<const float> logits, const TokenMask* mask) {
  LUTRA_CHECK(logits.size() == n_vocab_);
  logits_ = logits.data();
  masked_ = mask != nullptr;
  dense_ = true;
  sorted_ = false;
  size_ = 0;
  if (mask == nullptr) return;
  LUTRA_CHECK(mask->n_vocab() == n_vocab_);
  const std::span<float> to = MutableLogits();
  for (size_t i = 0; i < n_vocab_; i += 64) {
    const uint64_t word = mask->words()[i / 64];
    if (word == ~uint64_t{0}) continue;
    const size_t n = std::min<size_t>(64, n_vocab_ - i);
    for (size_t j = 0; j < n; ++j) {
      if ((word >> j & 1) == 0) to[i + j] = kNegInf;
    }
  }
}

std::span<float> Candidates::MutableLogits() {
  LUTRA_CHECK(dense_);
  if (logits_ != copy_.data()) {
    std::memcpy(copy_.data(), logits_, n_vocab_ * sizeof(float));
    logits_ = copy_.data();
  }
  return {copy_.data(), n_vocab_};
}

void Candidates::FailEmpty() const {
  size_t n_nan = 0;
  for (size_t i = 0; i < n_vocab_; ++i) n_nan += std::isnan(logits_[i]) ? 1 : 0;
  // NaN is the model's fault; all tokens forbidden is the request's.
  Fail(n_nan > 0 ? ErrorCode::kInternal : ErrorCode::kInvalidArgument,
       "no token can be drawn: %zu of %zu logits are NaN, the others are -infinity%s", n_nan,
       n_vocab_, masked_ ? " or not allowed by the mask" : "");
}

void Candidates::BecomeList(bool sorted) {
  if (size_ == 0) FailEmpty();
  dense_ = false;
  sorted_ = sorted || size_ == 1;
}

void Candidates::GatherAbove(float bound) {
  size_ = 0;
  size_t i = 0;
  for (; i + kBlock <= n_vocab_; i += kBlock) {
    if (!AnyAbove(logits_ + i, bound)) continue;
    for (size_t j = i; j < i + kBlock; ++j) {
      if (logits_[j] > bound) Push(static_cast<int32_t>(j), logits_[j]);
    }
  }
  for (; i < n_vocab_; ++i) {
    if (logits_[i] > bound) Push(static_cast<int32_t>(i), logits_[i]);
  }
}

void Candidates::GatherAtLeast(float bound) {
  size_ = 0;
  size_t i = 0;
  for (; i + kBlock <= n_vocab_; i += kBlock) {
    if (!AnyAtLeast(logits_ + i, bound)) continue;
    for (size_t j = i; j < i + kBlock; ++j) {
      if (logits_[j] >= bound) Push(static_cast<int32_t>(j), logits_[j]);
    }
  }
  for (; i < n_vocab_; ++i) {
    if (logits_[i] >= bound) Push(static_cast<int32_t>(i), logits_[i]);
  }
}

std::span<Candidate> Candidates::List() {
  if (dense_) {
    GatherAbove(kNegInf);
    BecomeList(false);
  }
  return {list_.data(), size_};
}

Candidate Candidates::Best() {
  if (!dense_) {
    if (sorted_) return list_[0];
    return *std::min_element(list_.data(), list_.data() + size_, Better);
  }
  // Strictly above, in order of ids: the first of equals stays.
  Candidate best = {-1, kNegInf, 0.0f};
  const auto look = [&](size_t i) {
    if (logits_[i] > best.logit) best = {static_cast<int32_t>(i), logits_[i], 0.0f};
  };
  size_t i = 0;
  for (; i + kBlock <= n_vocab_; i += kBlock) {
    if (!AnyAbove(logits_ + i, best.logit)) continue;
    for (size_t j = i; j < i + kBlock; ++j) look(j);
  }
  for (; i < n_vocab_; ++i) look(i);
  if (best.id < 0) FailEmpty();
  best.logit = ClampLogit(best.logit);
  return best;
}

void Candidates::MeanAndDeviation(double* mean, double* deviation) {
  // Four sums side by side, joined in a fixed order: the same bits whether vectorised or not.
  const auto pass = [&](double center, bool squared, double* count) {
    double sum[4] = {}, n[4] = {};
    const auto add = [&](size_t lane, float x) {
      const bool is_candidate = IsCandidateLogit(x);
      const double d = static_cast<double>(ClampLogit(x)) - center;
      sum[lane] += is_candidate ? (squared ? d * d : d) : 0.0;
      n[lane] += is_candidate ? 1.0 : 0.0;
    };
    if (dense_) {
      for (size_t i = 0; i < n_vocab_; ++i) add(i % 4, logits_[i]);
    } else {
      for (size_t i = 0; i < size_; ++i) add(i % 4, list_[i].logit);
    }
    *count = (n[0] + n[1]) + (n[2] + n[3]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  };
  double count;
  const double sum = pass(0.0, false, &count);
  if (count == 0.0) FailEmpty();
  *mean = sum / count;
  *deviation = std::sqrt(pass(*mean, true, &count) / count);
}

void Candidates::KeepOnlyBest() {
  list_[0] = Best();
  size_ = 1;
  BecomeList(true);
}

void Candidates::KeepBest(size_t k) {
  LUTRA_CHECK(k > 0);
  if (!dense_) {
    if (k >= size_) return;
    SortBest(k);
    Truncate(k);
    return;
  }
  if (k >= n_vocab_) {
    List();
    return;
  }
  // Collects what beats the k-th best so far. When the room (a few k) is full, the best k stay and
  // raise the bound, so that soon whole blocks of the vocabulary are passed over. An equal logit
  // with a higher id would lose against all k that are there, so "strictly above" is right.
  const size_t room = std::min(n_vocab_, std::max<size_t>(4 * k, 512));
  float bound = kNegInf;
  size_ = 0;
  const auto look = [&](size_t i) {
    if (!(logits_[i] > bound)) return;
    Push(static_cast<int32_t>(i), logits_[i]);
    if (size_ == room && room < n_vocab_) {
      std::nth_element(list_.data(), list_.data() + (k - 1), list_.data() + size_, Better);
      size_ = k;
      bound = list_[k - 1].logit;
    }
  };
  size_t i = 0;
  for (; i + kBlock <= n_vocab_; i += kBlock) {
    if (!AnyAbove(logits_ + i, bound)) continue;
    for (size_t j = i; j < i + kBlock; ++j) look(j);
  }
  for (; i < n_vocab_; ++i) look(i);
  BecomeList(false);
  SortBest(k);
  size_ = std::min(size_, k);
  sorted_ = true;
}

void Candidates::KeepAtLeast(float minimum) {
  if (dense_) {
    GatherAtLeast(std::max(minimum, -FLT_MAX));
    BecomeList(false);
  } else if (sorted_) {
    size_t n = size_;
    while (n > 0 && list_[n - 1].logit < minimum) --n;
    Truncate(n);
  } else {
    RemoveIf([minimum](const Candidate& x) { return x.logit < minimum; });
  }
}

void Candidates::Truncate(size_t n) {
  LUTRA_CHECK(!dense_ && n > 0 && n <= size_);
  size_ = n;
}

void Candidates::SortBest(size_t k) {
  List();
  if (sorted_) return;
  if (k < size_) {
    std::nth_element(list_.data(), list_.data() + k, list_.data() + size_, Better);
    std::sort(list_.data(), list_.data() + k, Better);
  } else {
    std::sort(list_.data(), list_.data() + size_, Better);
    sorted_ = true;
  }
}

void Candidates::KeepMass(double center, double mass, bool exceed, size_t min_keep, bool by_rank) {
  List();
  const bool in_order = sorted_ && by_rank;
  const auto distance = [center](const Candidate& x) {
    return std::fabs(center - static_cast<double>(x.logit));
  };
  // Sorting a whole vocabulary takes milliseconds. A histogram over the distances tells how much of
  // it has to be sorted: the buckets up to the one in which the mass is certainly reached.
  constexpr size_t kFew = 512;
  constexpr int kBuckets = 256;
  constexpr double kBucketsPerNat = 8.0;
  if (!in_order && size_ > kFew) {
    const auto bucket = [&](const Candidate& x) {
      const double b = distance(x) * kBucketsPerNat;
      return b < kBuckets - 1 ? static_cast<int>(b) : kBuckets - 1;
    };
    double bucket_mass[kBuckets] = {};
    size_t bucket_count[kBuckets] = {};
    for (size_t i = 0; i < size_; ++i) {
      const int b = bucket(list_[i]);
      bucket_mass[b] += static_cast<double>(list_[i].p);
      ++bucket_count[b];
    }
    // The sums here and below differ by their order of addition: far less than this margin.
    const double enough = mass * (1.0 + 1e-9);
    double total = 0.0;
    size_t count = 0;
    int last = 0;
    for (; last < kBuckets - 1; ++last) {
      total += bucket_mass[last];
      count += bucket_count[last];
      if (total > enough && count >= std::max<size_t>(min_keep, 1)) break;
    }
    if (last < kBuckets - 1) {
      RemoveIf([&](const Candidate& x) { return bucket(x) > last; });
    }
  }
  if (!in_order) {
    std::sort(list_.data(), list_.data() + size_, [&](const Candidate& a, const Candidate& b) {
      const double da = distance(a), db = distance(b);
      return da != db ? da < db : Better(a, b);
    });
    sorted_ = by_rank;
  }
  double total = 0.0;
  for (size_t i = 0; i < size_; ++i) {
    total += static_cast<double>(list_[i].p);
    if ((exceed ? total > mass : total >= mass) && i + 1 >= min_keep) {
      Truncate(i + 1);
      return;
    }
  }
}

Candidates::Totals Candidates::Sums() {
  if (!dense_) return Weights();
  const float max = Best().logit;
  return {max, SumExpDifferences(max, logits_, n_vocab_)};
}

Candidates::Totals Candidates::Weights() {
  const std::span<Candidate> list = List();
  Totals totals = {Best().logit, 0.0};
  constexpr size_t kChunk = 256;
  float e[kChunk];
  for (size_t begin = 0; begin < list.size(); begin += kChunk) {
    const size_t n = std::min(kChunk, list.size() - begin);
    for (size_t i = 0; i < n; ++i) e[i] = list[begin + i].logit;
    ExpDifferences(totals.max, e, n);
    for (size_t i = 0; i < n; ++i) list[begin + i].p = e[i];
    totals.sum += SumFloats(e, n);
  }
  return totals;
}

Candidates::Totals Candidates::Softmax() {
  const Totals totals = Weights();
  const double scale = 1.0 / totals.sum;
  for (size_t i = 0; i < size_; ++i) {
    list_[i].p = static_cast<float>(static_cast<double>(list_[i].p) * scale);
  }
  return totals;
}

double Candidates::Entropy(const Totals& totals) {
  // -ln p = ln(sum) - (logit - max): one logarithm in all. A p of 0 adds 0, its logit is finite.
  const double log_sum = Log(totals.sum);
  double h = 0.0;
  for (size_t i = 0; i < size_; ++i) {
    const double d = static_cast<double>(list_[i].logit) - static_cast<double>(totals.max);
    h += static_cast<double>(list_[i].p) * (log_sum - d);
  }
  return h / totals.sum;
}

}  // namespace lutra
