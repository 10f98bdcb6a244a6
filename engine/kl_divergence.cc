#include "engine/kl_divergence.h"

#include <algorithm>
#include <cmath>

#include "engine/float_math.h"
#include "kernels/base/error.h"
#include "kernels/log_softmax.h"

namespace lutra {
namespace {

// Linear between the values of ascending `sorted` that are beside the place.
double Percentile(const std::vector<double>& sorted, double percent) {
  const double place = percent / 100.0 * static_cast<double>(sorted.size() - 1);
  const size_t below = std::min(static_cast<size_t>(place), sorted.size() - 1);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = place - static_cast<double>(below);
  return (1 - part) * sorted[below] + part * sorted[above];
}

double Error2(const Estimate& e) { return e.error * e.error; }
// Rounding can take a variance that should be 0 below it.
double RootOfVariance(double v) { return v > 0 ? std::sqrt(v) : 0.0; }

// What both ways of comparing share: windows, threads, order. compare(window, pos, i-th logits, slot) runs on any thread;
// check(window, pos, slot) on the calling one.
template <class Compare, class Check>
KlReport CompareAll(std::span<WindowRunner* const> runners, ThreadPool& pool,
                    const EvalWindows& windows, const KlProgress& progress,
                    std::vector<TokenComparison>& slots, Compare compare, Check check) {
  KlDivergence all;
  const bool complete = RunWindows(
      runners, windows, WindowPass::ForScores(windows),
      [&](size_t w, size_t pos, size_t n) {
        const size_t first = pos - windows.scored_begin();
        pool.Region([&] {
          pool.For(n, [&](size_t i) { slots[first + i] = compare(w, pos + i, i, first + i); });
        });
        for (size_t i = 0; i < n; ++i) check(w, pos + i, slots[first + i]);
      },
      [&](size_t w) {
        for (const TokenComparison& t : slots) all.Add(t);
        all.EndWindow();
        return !progress || progress(all, w + 1, windows.size());
      });
  KlReport report = all.Report();
  report.complete = complete;
  return report;
}

double Nll(const ExpSum& sum, double log_sum, float logit) {
  return static_cast<double>(sum.max) + log_sum - static_cast<double>(logit);
}

KlReport CompareRunners(WindowRunner& reference, WindowRunner& tested, const EvalWindows& windows,
                        const KlProgress& progress) {
  WindowRunner* const runners[] = {&reference, &tested};
  std::vector<TokenComparison> slots(windows.n_scored());
  const auto compare = [&](size_t w, size_t pos, size_t i, size_t) {
    const std::span<const float> a = reference.logits(i), b = tested.logits(i);
    const ExpSum sum_a = SumExp(a.data(), a.size()), sum_b = SumExp(b.data(), b.size());
    const double log_a = Log(sum_a.sum), log_b = Log(sum_b.sum);
    const size_t target = static_cast<size_t>(windows.target(w, pos));
    TokenComparison t;
    t.nll_reference = Nll(sum_a, log_a, a[target]);
    t.nll = Nll(sum_b, log_b, b[target]);
    t.kld = SumExpDifference(a.data(), sum_a.max, b.data(), a.size()) / sum_a.sum +
            (log_b - log_a) + (static_cast<double>(sum_b.max) - static_cast<double>(sum_a.max));
    t.same_top = sum_a.argmax == sum_b.argmax;
    return t;
  };
  const auto check = [&](size_t w, size_t pos, const TokenComparison& t) {
    if (!std::isfinite(t.nll_reference)) FailNotFinite(reference.engine(), w, pos);
    if (!std::isfinite(t.nll) || !std::isfinite(t.kld)) FailNotFinite(tested.engine(), w, pos);
  };
  return CompareAll(runners, tested.engine().pool(), windows, progress, slots, compare, check);
}

}  // namespace

void KlDivergence::Add(const TokenComparison& t) {
  nll_.Add(t.nll);
  reference_.Add(t.nll_reference);
  sum_both_ += t.nll * t.nll_reference;
  kld_.push_back(t.kld);
  sum_kld_ += t.kld;
  sum_kld2_ += t.kld * t.kld;
  const double delta = Exp(-t.nll) - Exp(-t.nll_reference);
  delta_p_.push_back(delta);
  sum_delta_ += delta;
  sum_delta2_ += delta * delta;
  sum_delta4_ += delta * delta * delta * delta;
  n_same_top_ += t.same_top;
}

KlReport KlDivergence::Means() const {
  KlReport r;
  const size_t n = kld_.size();
  r.n_tokens = n;
  r.n_windows = n_windows_;
  if (n == 0) return r;
  const double count = static_cast<double>(n);
  const Estimate ln = nll_.Mean(), ln_reference = reference_.Mean();
  r.perplexity = nll_.Perplexity();
  r.reference_perplexity = reference_.Perplexity();
  // Covariance of the two means.
  const double covariance =
      n >= 2 ? (sum_both_ / count - ln.value * ln_reference.value) / (count - 1) : 0.0;
  r.correlation =
      ln.error > 0 && ln_reference.error > 0 ? covariance / (ln.error * ln_reference.error) : 0.0;
  r.ln_ratio = {ln.value - ln_reference.value,
                RootOfVariance(Error2(ln) + Error2(ln_reference) - 2 * covariance)};
  r.ratio.value = Exp(r.ln_ratio.value);
  r.ratio.error = r.ratio.value * r.ln_ratio.error;
  r.difference = {
      r.perplexity.value - r.reference_perplexity.value,
      RootOfVariance(Error2(r.perplexity) + Error2(r.reference_perplexity) -
                     2 * r.perplexity.value * r.reference_perplexity.value * covariance)};
  r.kld = MeanOf(sum_kld_, sum_kld2_, n);
  r.delta_p = MeanOf(sum_delta_, sum_delta2_, n);
  const Estimate square = MeanOf(sum_delta2_, sum_delta4_, n);
  r.delta_p_rms.value = std::sqrt(square.value);
  r.delta_p_rms.error = r.delta_p_rms.value > 0 ? 0.5 / r.delta_p_rms.value * square.error : 0.0;
  r.same_top.value = static_cast<double>(n_same_top_) / count;
  r.same_top.error =
      n >= 2 ? std::sqrt(r.same_top.value * (1 - r.same_top.value) / (count - 1)) : 0.0;
  return r;
}

KlReport KlDivergence::Report() const {
  KlReport r = Means();
  if (kld_.empty()) return r;
  std::vector<double> sorted = kld_;
  std::sort(sorted.begin(), sorted.end());
  r.kld_min = sorted.front();
  r.kld_max = sorted.back();
  for (size_t i = 0; i < kKldPercentiles.size(); ++i)
    r.kld_percentiles[i] = Percentile(sorted, kKldPercentiles[i]);
  sorted = delta_p_;
  std::sort(sorted.begin(), sorted.end());
  r.delta_p_min = sorted.front();
  r.delta_p_max = sorted.back();
  for (size_t i = 0; i < kDeltaPercentiles.size(); ++i) {
    r.delta_p_percentiles[i] = Percentile(sorted, kDeltaPercentiles[i]);
  }
  return r;
}

KlReport CompareModels(Engine& reference, Engine& tested, const EvalWindows& windows,
                       const KlProgress& progress) {
  if (reference.hparams().n_vocab != tested.hparams().n_vocab) {
    Fail(ErrorCode::kInvalidArgument,
         "%s has a vocabulary of %u tokens, %s of %u: only models with the same can be compared",
         Printable(reference.model().file().path(), 400).c_str(), reference.hparams().n_vocab,
         Printable(tested.model().file().path(), 400).c_str(), tested.hparams().n_vocab);
  }
  WindowRunner reference_runner(reference, windows.n_ctx()), tested_runner(tested, windows.n_ctx());
  return CompareRunners(reference_runner, tested_runner, windows, progress);
}

KlReport CompareKvTypes(Engine& reference, KvType tested, const EvalWindows& windows,
                        const KlProgress& progress) {
  WindowRunner reference_runner(reference, windows.n_ctx()),
      tested_runner(reference, windows.n_ctx(), tested);
  return CompareRunners(reference_runner, tested_runner, windows, progress);
}

KlReport CompareWithFile(const LogitsFile& reference, Engine& tested, const EvalWindows& windows,
                         const KlProgress& progress) {
  if (reference.n_vocab() != tested.hparams().n_vocab) {
    Fail(ErrorCode::kInvalidArgument,
         "%s is of a vocabulary of %u tokens, %s has %u: only models with the same can be compared",
         Printable(reference.path(), 400).c_str(), reference.n_vocab(),
         Printable(tested.model().file().path(), 400).c_str(), tested.hparams().n_vocab);
  }
  WindowRunner runner(tested, windows.n_ctx());
  WindowRunner* const runners[] = {&runner};
  std::vector<TokenComparison> slots(windows.n_scored());
  const auto compare = [&](size_t w, size_t pos, size_t i, size_t slot) {
    const std::span<const float> x = runner.logits(i);
    const LogitsFile::Row row = reference.RowAt(w, slot);
    const ExpSum sum = SumExp(x.data(), x.size());
    const double log_sum = Log(sum.sum);
    const size_t target = static_cast<size_t>(windows.target(w, pos));
    TokenComparison t;
    t.nll = Nll(sum, log_sum, x[target]);
    t.nll_reference = -(static_cast<double>(row.scale.step) * row.codes[target] +
                        static_cast<double>(row.scale.min_log_prob));
    t.kld =
        SumCodedDifference(row.scale, row.codes, x.data(),
                           static_cast<float>(static_cast<double>(sum.max) + log_sum), x.size());
    const auto top = std::max_element(row.codes, row.codes + x.size());
    t.same_top = static_cast<size_t>(top - row.codes) == sum.argmax;
    return t;
  };
  const auto check = [&](size_t w, size_t pos, const TokenComparison& t) {
    if (!std::isfinite(t.nll_reference)) {
      Fail(ErrorCode::kCorrupt,
           "%s: the log probabilities after token %zu of chunk %zu are not numbers",
           Printable(reference.path(), 400).c_str(), pos + 1, w + 1);
    }
    if (!std::isfinite(t.nll) || !std::isfinite(t.kld)) FailNotFinite(tested, w, pos);
    if (pos + 1 == windows.scored_end()) reference.Release(w);
  };
  return CompareAll(runners, tested.pool(), windows, progress, slots, compare, check);
}

std::string KlReportText(const KlReport& r) {
  const auto percent_name = [](double p) {
    return p == 50 ? std::string("Median  ") : Format("%4.1f%%   ", p);
  };
  std::string s = "====== Perplexity statistics ======\n";
  const auto line = [&](const char* name, const Estimate& e) {
    s += Format("%-30s: %10.6f \u00b1 %10.6f\n", name, e.value, e.error);
  };
  line("Mean PPL(Q)", r.perplexity);
  line("Mean PPL(base)", r.reference_perplexity);
  s += Format("%-30s: %6.2f%%\n", "Cor(ln(PPL(Q)), ln(PPL(base)))", 100 * r.correlation);
  line("Mean ln(PPL(Q)/PPL(base))", r.ln_ratio);
  line("Mean PPL(Q)/PPL(base)", r.ratio);
  line("Mean PPL(Q)-PPL(base)", r.difference);
  s += "\n====== KL divergence statistics ======\n";
  s += Format("Mean    KLD: %10.6f \u00b1 %10.6f\n", r.kld.value, r.kld.error);
  s += Format("Maximum KLD: %10.6f\n", r.kld_max);
  for (size_t i = 0; i < kKldPercentiles.size(); ++i) {
    s += Format("%sKLD: %10.6f\n", percent_name(kKldPercentiles[i]).c_str(), r.kld_percentiles[i]);
  }
  s += Format("Minimum KLD: %10.6f\n", r.kld_min);
  s += "\n====== Token probability statistics ======\n";
  s += Format("Mean    \u0394p: %6.3f \u00b1 %5.3f %%\n", 100 * r.delta_p.value,
              100 * r.delta_p.error);
  s += Format("Maximum \u0394p: %6.3f%%\n", 100 * r.delta_p_max);
  for (size_t i = 0; i < kDeltaPercentiles.size(); ++i) {
    s += Format("%s\u0394p: %6.3f%%\n", percent_name(kDeltaPercentiles[i]).c_str(),
                100 * r.delta_p_percentiles[i]);
  }
  s += Format("Minimum \u0394p: %6.3f%%\n", 100 * r.delta_p_min);
  s += Format("RMS \u0394p    : %6.3f \u00b1 %5.3f %%\n", 100 * r.delta_p_rms.value,
              100 * r.delta_p_rms.error);
  s +=
      Format("Same top p: %6.3f \u00b1 %5.3f %%\n", 100 * r.same_top.value, 100 * r.same_top.error);
  return s;
}

}  // namespace lutra
