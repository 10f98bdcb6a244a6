// Collecting an importance matrix: the squared activations that meet each column of each weight matrix while the model reads a
// text.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "engine/eval_windows.h"
#include "engine/perplexity.h"
#include "models/imatrix_sum.h"
#include "models/matrix_names.h"

namespace lutra {

// Sums in double, token after token: the same bits for all threads and batches. Belongs to the thread that runs the passes. The model
// and the pool must outlive it.
class ImatrixCollector : public InputObserver {
 public:
  // Matrices of the layers; with_output: also the output matrix, unless it is tied to the embedding.
  ImatrixCollector(const Model& model, ThreadPool& pool, bool with_output);

  void Observe(std::span<const Product> products, const MatrixInput& input) override;

  // Adds what was seen to `sum` and begins anew.
  void MoveTo(ImatrixSum* sum);

 private:
  // A tensor. Matrices that meet the same input (q, k and v; gate and up) share the sums of the first.
  struct Tensor {
    std::string name;
    size_t shares = kNoTensor;  // index of the tensor that has the sums, once seen
    uint64_t n_columns = 0;
    std::vector<double> sums;    // [n_matrices, n_columns]; empty if shared
    std::vector<double> counts;  // [n_matrices]
  };
  struct Place {
    size_t tensor;
    uint32_t index;
  };
  static constexpr size_t kNoTensor = static_cast<size_t>(-1);

  ThreadPool& pool_;
  std::vector<Tensor> tensors_;
  std::unordered_map<const Matrix*, Place> places_;
};

struct ImatrixOptions {
  bool process_output = false;  // the output matrix, too
  bool perplexity = true;       // measure it on the way
};

// Adds the activations of all windows to *sum, window after window (progress sees it up to date), and gives the perplexity (of no tokens
// if it was not asked for). Every token of a window counts, scored or not. Throws as MeasurePerplexity; the windows completed
// before are in *sum then.
PerplexityResult CollectImatrix(Engine& engine, const EvalWindows& windows,
                                const ImatrixOptions& options, ImatrixSum* sum,
                                const PerplexityProgress& progress = {});

}  // namespace lutra
