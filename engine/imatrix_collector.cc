#include "engine/imatrix_collector.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace lutra {
namespace {

// Columns a thread takes at once.
constexpr size_t kColumns = 512;

// sums[i] += x[i]^2 for columns [begin, end) of all rows. A square of a float is exact in double.
void AddSquares(const MatrixInput& input, size_t begin, size_t end, double* __restrict sums) {
  for (size_t t = 0; t < input.n_tokens(); ++t) {
    const float* __restrict x = input.row(t);
    for (size_t i = begin; i < end; ++i)
      sums[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
}

}  // namespace

ImatrixCollector::ImatrixCollector(const Model& model, ThreadPool& pool, bool with_output)
    : pool_(pool) {
  std::unordered_map<std::string, size_t> by_name;
  for (const NamedMatrix& m : NamedMatrices(model)) {
    const bool layer = m.tensor.starts_with("blk.");
    if (!layer && !(with_output && m.tensor == "output.weight")) continue;
    const auto [it, added] = by_name.emplace(m.tensor, tensors_.size());
    if (added) {
      Tensor t;
      t.name = m.tensor;
      t.n_columns = m.matrix->n_cols();
      t.counts.resize(m.n_matrices);
      tensors_.push_back(std::move(t));
    }
    places_.emplace(m.matrix, Place{it->second, m.index});
  }
}

void ImatrixCollector::Observe(std::span<const Product> products, const MatrixInput& input) {
  const Place* first = nullptr;
  for (const Product& p : products) {
    const auto it = places_.find(p.w);
    if (it == places_.end()) continue;
    Tensor& tensor = tensors_[it->second.tensor];
    if (first == nullptr) first = &it->second;
    LUTRA_CHECK(tensor.shares == kNoTensor || tensor.shares == first->tensor);
    tensor.shares = first->tensor;
  }
  if (first == nullptr) return;
  Tensor& tensor = tensors_[first->tensor];
  LUTRA_CHECK(input.n_cols() == tensor.n_columns);
  if (tensor.sums.empty()) tensor.sums.resize(tensor.counts.size() * tensor.n_columns);
  double* sums = tensor.sums.data() + first->index * tensor.n_columns;
  pool_.For((tensor.n_columns + kColumns - 1) / kColumns, [&](size_t block) {
    AddSquares(input, block * kColumns, std::min<size_t>(tensor.n_columns, (block + 1) * kColumns),
               sums);
  });
  tensor.counts[first->index] += static_cast<double>(input.n_tokens());
}

void ImatrixCollector::MoveTo(ImatrixSum* sum) {
  for (const Tensor& tensor : tensors_) {
    if (tensor.shares == kNoTensor) continue;
    const Tensor& owner = tensors_[tensor.shares];
    sum->Add(tensor.name, owner.sums, owner.counts, "the text");
  }
  for (Tensor& tensor : tensors_) {
    std::fill(tensor.sums.begin(), tensor.sums.end(), 0.0);
    std::fill(tensor.counts.begin(), tensor.counts.end(), 0.0);
  }
}

PerplexityResult CollectImatrix(Engine& engine, const EvalWindows& windows,
                                const ImatrixOptions& options, ImatrixSum* sum,
                                const PerplexityProgress& progress) {
  ImatrixCollector collector(engine.model(), engine.pool(), options.process_output);
  struct Watch {
    Watch(Decoder& d, InputObserver* observer) : decoder(d) { decoder.set_observer(observer); }
    ~Watch() { decoder.set_observer(nullptr); }
    Decoder& decoder;
  } watch(engine.decoder(), &collector);
  WindowRunner runner(engine, windows.n_ctx());
  WindowRunner* const runners[] = {&runner};
  // The output matrix meets the tokens whose logits are wanted.
  const size_t begin = options.process_output ? 0 : windows.scored_begin();
  const size_t end = options.process_output ? windows.n_ctx()
                     : options.perplexity   ? windows.scored_end()
                                            : begin;
  PerplexityResult result;
  std::vector<double> nll(windows.n_scored());
  result.complete = RunWindows(
      runners, windows, {windows.n_ctx(), begin, end},
      [&](size_t w, size_t pos, size_t n) {
        if (options.perplexity) ScorePositions(runner, windows, w, pos, n, nll);
      },
      [&](size_t) {
        for (size_t i = 0; options.perplexity && i < nll.size(); ++i) result.nll.Add(nll[i]);
        collector.MoveTo(sum);
        ++result.n_windows;
        return !progress || progress(result, windows.size());
      });
  return result;
}

}  // namespace lutra
