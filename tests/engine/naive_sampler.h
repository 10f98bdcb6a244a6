// Straightforward versions of the sampler's stages, for comparison: long double, library functions,
// full sorts, quadratic searches. Written from the definitions, not from the code under test.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "engine/sampling_params.h"
#include "engine/token_texts.h"
#include "tests/test_util.h"

namespace lutra::testing {

struct NaiveCandidate {
  int32_t id;
  long double logit;
  long double p = 0;
};
using NaiveList = std::vector<NaiveCandidate>;

inline NaiveList NaiveStart(const std::vector<float>& logits) {
  NaiveList list;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) list.push_back({static_cast<int32_t>(i), logits[i]});
  }
  return list;
}

inline void NaiveSoftmax(NaiveList* list) {
  long double max = -INFINITY, sum = 0;
  for (const auto& x : *list) max = std::max(max, x.logit);
  for (auto& x : *list) sum += x.p = std::exp(x.logit - max);
  for (auto& x : *list) x.p /= sum;
}

inline void NaiveSort(NaiveList* list) {
  std::sort(list->begin(), list->end(), [](const NaiveCandidate& a, const NaiveCandidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  });
}

inline long double NaiveEntropy(const NaiveList& list) {
  long double h = 0;
  for (const auto& x : list) h -= x.p > 0 ? x.p * std::log(x.p) : 0;
  return h;
}

// A small vocabulary of literal texts; Tokenize takes the longest token that fits.
class LiteralVocab : public TokenTexts {
 public:
  explicit LiteralVocab(std::vector<std::string> texts, int32_t end = -1)
      : texts_(std::move(texts)), end_(end) {}
  size_t size() const override { return texts_.size(); }
  void TokenText(int32_t id, std::string* out) const override {
    *out = texts_.at(static_cast<size_t>(id));
  }
  std::vector<int32_t> Tokenize(std::string_view text) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      size_t best = 0, best_size = 0;
      for (size_t i = 0; i < texts_.size(); ++i) {
        if (texts_[i].size() > best_size && text.substr(0, texts_[i].size()) == texts_[i]) {
          best = i;
          best_size = texts_[i].size();
        }
      }
      if (best_size == 0) return ids;
      ids.push_back(static_cast<int32_t>(best));
      text.remove_prefix(best_size);
    }
    return ids;
  }
  bool IsEndOfGeneration(int32_t id) const override { return id == end_; }

 private:
  std::vector<std::string> texts_;
  int32_t end_;
};

// Repetition lengths of DRY without breakers but a given limit: for each token t the greatest m so
// that the last m tokens followed by t occur in `history`.
inline std::map<int32_t, size_t> NaiveRepetitions(const std::vector<int32_t>& history,
                                                  size_t limit) {
  std::map<int32_t, size_t> longest;
  const size_t n = history.size();
  for (size_t j = 1; j < n; ++j) {
    size_t m = 0;
    while (m < j && m < limit && history[j - 1 - m] == history[n - 1 - m]) ++m;
    if (m > 0) longest[history[j]] = std::max(longest[history[j]], m);
  }
  return longest;
}

inline std::vector<int32_t> LastOf(const std::vector<int32_t>& history, int32_t n) {
  const size_t count = std::min(history.size(), static_cast<size_t>(std::max(n, 0)));
  return {history.end() - static_cast<ptrdiff_t>(count), history.end()};
}

// One stage. `xtc_applies` stands for its random choice. DRY without breakers.
inline void NaiveStage(const std::string& name, const SamplingParams& p,
                       const std::vector<int32_t>& history, bool xtc_applies, NaiveList* list) {
  const size_t min_keep = static_cast<size_t>(std::max(p.min_keep, 1));
  NaiveList& l = *list;
  if (name == "penalties") {
    std::map<int32_t, int> count;
    for (const int32_t t : LastOf(history, p.repeat_last_n)) ++count[t];
    for (auto& x : l) {
      if (count[x.id] == 0) continue;
      x.logit = x.logit <= 0 ? x.logit * p.repeat_penalty : x.logit / p.repeat_penalty;
      x.logit -= static_cast<long double>(count[x.id]) * p.frequency_penalty + p.presence_penalty;
    }
  } else if (name == "dry") {
    const auto recent = LastOf(history, p.dry_penalty_last_n);
    if (p.dry_multiplier == 0) return;
    for (const auto& [token, m] : NaiveRepetitions(recent, recent.size())) {
      if (m < static_cast<size_t>(p.dry_allowed_length)) continue;
      for (auto& x : l) {
        if (x.id != token) continue;
        x.logit -= p.dry_multiplier * std::pow(static_cast<long double>(p.dry_base),
                                               static_cast<long double>(m) - p.dry_allowed_length);
      }
    }
  } else if (name == "top_n_sigma") {
    if (p.top_n_sigma <= 0) return;
    long double mean = 0, var = 0, max = -INFINITY;
    for (const auto& x : l) mean += x.logit / static_cast<long double>(l.size());
    for (const auto& x : l) {
      var += (x.logit - mean) * (x.logit - mean) / static_cast<long double>(l.size());
      max = std::max(max, x.logit);
    }
    std::erase_if(l, [&](const auto& x) { return x.logit < max - p.top_n_sigma * std::sqrt(var); });
  } else if (name == "top_k") {
    if (p.top_k <= 0 || static_cast<size_t>(p.top_k) >= l.size()) return;
    NaiveSort(&l);
    l.resize(static_cast<size_t>(p.top_k));
  } else if (name == "typ_p") {
    if (p.typical_p >= 1) return;
    NaiveSoftmax(&l);
    const long double h = NaiveEntropy(l);
    std::sort(l.begin(), l.end(), [h](const auto& a, const auto& b) {
      const long double da = std::fabs(-std::log(a.p) - h), db = std::fabs(-std::log(b.p) - h);
      return da != db ? da < db : a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    });
    long double sum = 0;
    for (size_t i = 0; i < l.size(); ++i) {
      sum += l[i].p;
      if (sum > p.typical_p && i + 1 >= min_keep) return l.resize(i + 1);
    }
  } else if (name == "top_p") {
    if (p.top_p >= 1) return;
    NaiveSoftmax(&l);
    NaiveSort(&l);
    long double sum = 0;
    for (size_t i = 0; i < l.size(); ++i) {
      sum += l[i].p;
      if (sum >= p.top_p && i + 1 >= min_keep) return l.resize(i + 1);
    }
  } else if (name == "min_p") {
    if (p.min_p <= 0) return;
    NaiveSoftmax(&l);
    NaiveSort(&l);
    size_t n = 0;
    while (n < l.size() && (n < min_keep || l[n].p >= p.min_p * l[0].p)) ++n;
    l.resize(n);
  } else if (name == "xtc") {
    if (!xtc_applies || p.xtc_threshold > 0.5f) return;
    NaiveSoftmax(&l);
    NaiveSort(&l);
    size_t j = 0;
    for (size_t i = 0; i < l.size(); ++i) {
      if (l[i].p >= p.xtc_threshold) j = i;
    }
    if (j > 0 && l.size() - j >= static_cast<size_t>(p.min_keep)) {
      l.erase(l.begin(), l.begin() + static_cast<ptrdiff_t>(j));
    }
  } else if (name == "temperature") {
    long double t = p.temperature;
    if (p.dynatemp_range > 0) {
      if (l.size() < 2) return;
      NaiveSoftmax(&l);
      const long double low = std::max(0.0L, t - p.dynatemp_range), high = t + p.dynatemp_range;
      t = low +
          (high - low) * std::pow(NaiveEntropy(l) / std::log(static_cast<long double>(l.size())),
                                  static_cast<long double>(p.dynatemp_exponent));
    }
    if (t <= 0) {
      NaiveSort(&l);
      l.resize(1);
    }
    for (auto& x : l) x.logit /= t > 0 ? t : 1;
  } else {
    FAIL("no naive version of stage " << name);
  }
}

// Logits that are the same on every machine: integers times a power of two, roughly bell-shaped.
inline std::vector<float> BellLogits(size_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::vector<float> logits(n);
  for (float& x : logits) {
    int32_t sum = 0;
    for (int i = 0; i < 6; ++i) sum += static_cast<int32_t>(random() >> 12) - (1 << 19);
    x = static_cast<float>(sum) * 0x1p-18f * scale;
  }
  return logits;
}

}  // namespace lutra::testing
