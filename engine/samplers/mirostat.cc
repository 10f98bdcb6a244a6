// Mirostat 1 and 2: choose how many candidates to draw from so that the surprise of the accepted
// tokens stays near tau bits. mu, the state, starts at 2 tau and moves by eta times the error when
// the token that was drawn is accepted: a drawn token that a grammar refuses leaves no trace.
// Source: Basu et al. 2020, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
// Perplexity", algorithms 1 and 2.
#include <algorithm>
#include <cmath>

#include "engine/float_math.h"
#include "engine/sampler_stage.h"

namespace lutra {
namespace {

constexpr double kLog2E = 0x1.71547652b82fep+0;

class Mirostat : public TokenSelector {
 public:
  explicit Mirostat(const StageContext& context)
      : tau_(static_cast<double>(context.params.mirostat_tau)),
        eta_(static_cast<double>(context.params.mirostat_eta)),
        mu_(2.0 * tau_),
        random_(context.seed) {}

  int32_t Select(Candidates* candidates) final {
    Cut(candidates);
    const size_t index = DrawIndex(candidates, &random_, /*probabilities=*/true);
    const Candidate& chosen = candidates->List()[index];
    drawn_ = chosen.id;
    surprise_ = -Log(static_cast<double>(chosen.p)) * kLog2E;
    return drawn_;
  }

  void Accept(int32_t token) final {
    if (token == drawn_) mu_ -= eta_ * (surprise_ - tau_);
    drawn_ = -1;
  }

  void Reset() final {
    mu_ = 2.0 * tau_;
    drawn_ = -1;
    random_.Reset();
  }

 protected:
  double mu() const { return mu_; }

 private:
  // Leaves the candidates to draw from.
  virtual void Cut(Candidates* candidates) = 0;

  double tau_, eta_, mu_;
  int32_t drawn_ = -1;     // by the last Select, not accepted yet
  double surprise_ = 0.0;  // of drawn_, in bits
  RandomStream random_;
};

// Version 1 estimates the exponent s of a Zipf distribution from the best tokens and computes from
// it how many of them give a surprise of mu.
class Mirostat1 : public Mirostat {
 public:
  explicit Mirostat1(const StageContext& context)
      : Mirostat(context), n_vocab_(static_cast<double>(context.n_vocab)) {}
  std::unique_ptr<TokenSelector> Clone() const override {
    return std::make_unique<Mirostat1>(*this);
  }

 private:
  static constexpr size_t kBest = 100;

  void Cut(Candidates* candidates) override {
    if (!candidates->dense()) return;  // temperature <= 0 has chosen
    candidates->KeepBest(kBest);
    candidates->SortBest(kBest);
    const std::span<const Candidate> list = candidates->List();
    double sum_tb = 0.0, sum_tt = 0.0;
    for (size_t i = 0; i + 1 < std::min(kBest, list.size()); ++i) {
      const double rank = static_cast<double>(i);
      const double t = Log((rank + 2.0) / (rank + 1.0));
      // ln(p_i / p_i+1)
      const double b = static_cast<double>(list[i].logit) - static_cast<double>(list[i + 1].logit);
      sum_tb += t * b;
      sum_tt += t * t;
    }
    const double n = n_vocab_;
    double k = n;
    if (sum_tb > 0.0) {
      const double s = sum_tb / sum_tt;
      const double epsilon = s - 1.0;
      // (1 - V^-epsilon) / epsilon, whose limit at epsilon 0 is ln V.
      const double spread =
          std::fabs(epsilon) < 1e-9 ? Log(n_vocab_) : (1.0 - Pow(n_vocab_, -epsilon)) / epsilon;
      k = Pow(Pow(2.0, mu()) / spread, 1.0 / s);
    }
    // Also false for NaN, as from a vocabulary of one token.
    const size_t keep = static_cast<size_t>(k < n ? std::max(k, 1.0) : n);
    if (keep <= list.size()) {
      candidates->Truncate(keep);
    } else if (list.size() >= kBest) {
      candidates->BackToDense();
      candidates->KeepBest(keep);
    }
  }

  double n_vocab_;
};

// Version 2 removes the tokens whose surprise is greater than mu.
class Mirostat2 : public Mirostat {
 public:
  using Mirostat::Mirostat;
  std::unique_ptr<TokenSelector> Clone() const override {
    return std::make_unique<Mirostat2>(*this);
  }

 private:
  void Cut(Candidates* candidates) override {
    const Candidates::Totals totals = candidates->Sums();
    const double max = static_cast<double>(totals.max);
    // -log2 p > mu, solved for the logit: one logarithm in all.
    const double minimum = max + Log(totals.sum) - mu() / kLog2E;
    // Where not even the best passes, it stays alone.
    if (max < minimum) {
      candidates->KeepOnlyBest();
    } else {
      candidates->KeepAtLeast(ClampLogit(static_cast<float>(minimum)));
      candidates->SortBest(candidates->size());
    }
  }
};

}  // namespace

std::unique_ptr<TokenSelector> MakeMirostat1(const StageContext& context) {
  return std::make_unique<Mirostat1>(context);
}

std::unique_ptr<TokenSelector> MakeMirostat2(const StageContext& context) {
  return std::make_unique<Mirostat2>(context);
}

}  // namespace lutra
