#include "engine/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/float_math.h"
#include "engine/perplexity.h"
#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "kernels/log_softmax.h"
#include "kernels/quantize/quantize.h"

namespace lutra {
namespace {

constexpr const char* kProbeType = "IQ3_K";

// Rounds a tensor of floats where it lies; restores it when it goes.
class RoundedTensor {
 public:
  RoundedTensor(const GgufTensor& tensor, uint8_t* bytes, const QuantizeOptions& options,
                ThreadPool& pool)
      : bytes_(bytes), saved_(bytes, bytes + tensor.bytes) {
    const uint64_t n = tensor.dim(0), n_rows = tensor.n_weights() / n,
                   row_bytes = RowBytes(*tensor.type, n);
    const TensorTypeInfo& type = *FallbackForRows(FindWritableType(kProbeType), n);
    const DequantizeFn decode = FindDequantizer(tensor.type->id),
                       decode_probe = FindDequantizer(type.id);
    std::vector<RowError> errors(n_rows);
    std::vector<std::vector<float>> importance;
    for (uint64_t m = 0; m < n_rows / tensor.dim(1); ++m)
      importance.push_back(ImportanceOf(options, tensor, m));
    const uint64_t rows_a_task = std::max<uint64_t>(1, 65536 / n);
    pool.Region([&] {
      pool.For((n_rows + rows_a_task - 1) / rows_a_task, [&](size_t task) {
        RowQuantizer quantizer(type.id), back(tensor.type->id);
        std::vector<float> x(n), y(n);
        std::vector<uint8_t> code(RowBytes(type, n));
        for (uint64_t r = task * rows_a_task; r < std::min(n_rows, (task + 1) * rows_a_task); ++r) {
          const std::vector<float>& weights = importance[r / tensor.dim(1)];
          decode(bytes + r * row_bytes, n, x.data());
          quantizer.Quantize(x, weights, code.data());
          decode_probe(code.data(), n, y.data());
          errors[r] = ErrorOf(x, y, weights);
          back.Quantize(y, {}, bytes + r * row_bytes);
        }
      });
    });
    for (const RowError& e : errors) error_ += e;
  }
  RoundedTensor(const RoundedTensor&) = delete;
  RoundedTensor& operator=(const RoundedTensor&) = delete;
  ~RoundedTensor() { std::memcpy(bytes_, saved_.data(), saved_.size()); }

  double relative_error() const { return error_.relative(); }

 private:
  uint8_t* bytes_;
  std::vector<uint8_t> saved_;
  RowError error_;
};

// Runs all windows; take(slot, logits) for every scored position on any thread, slots counted through the windows.
template <class Take>
void RunAll(WindowRunner& runner, const EvalWindows& windows, Take take) {
  WindowRunner* const runners[] = {&runner};
  ThreadPool& pool = runner.engine().pool();
  RunWindows(
      runners, windows, WindowPass::ForScores(windows),
      [&](size_t w, size_t pos, size_t n) {
        const size_t first = w * windows.n_scored() + pos - windows.scored_begin();
        pool.Region([&] { pool.For(n, [&](size_t i) { take(first + i, runner.logits(i)); }); });
      },
      [](size_t) { return true; });
}

}  // namespace

Sensitivities MeasureSensitivities(EngineOptions options, const QuantizeOptions& quantize,
                                   const EvalWindows& windows,
                                   const std::function<void(size_t done, size_t all)>& progress) {
  GgufFile source = GgufFile::Open(options.model_path);
  std::vector<uint8_t*> parts;
  for (size_t i = 0; i < source.n_parts(); ++i) parts.push_back(source.Edit(i));
  options.need_tokenizer = false;
  Engine engine(ForEvaluation(options, windows.n_ctx()), std::move(source));
  const GgufFile& file = engine.model().file();
  std::vector<const GgufTensor*> tensors;
  for (const GgufTensor& tensor : file.tensors()) {
    if (!IsQuantizable(tensor)) continue;
    if (tensor.type->block_weights != 1) {
      Fail(ErrorCode::kUnsupported,
           "%s: tensor '%s' is %s: sensitivities are measured on models in F32, F16 or BF16",
           Printable(file.path(), 400).c_str(), Printable(tensor.name, 80).c_str(),
           tensor.type->name);
    }
    tensors.push_back(&tensor);
  }

  WindowRunner runner(engine, windows.n_ctx());
  const size_t n_vocab = engine.hparams().n_vocab, n_scored = windows.size() * windows.n_scored();
  const uint64_t bytes = uint64_t{n_scored} * n_vocab * sizeof(float),
                 available = AdviseMemory().available_bytes;
  if (available != 0 && bytes > available) {
    Fail(ErrorCode::kResourceExhausted,
         "sensitivities: the logits of %zu tokens take %.1f GiB, only %.1f GiB are available: "
         "measure fewer chunks",
         n_scored, static_cast<double>(bytes) / 1073741824.0,
         static_cast<double>(available) / 1073741824.0);
  }
  std::vector<float> reference(n_scored * n_vocab);
  std::vector<ExpSum> sums(n_scored);
  if (progress) progress(0, tensors.size());
  RunAll(runner, windows, [&](size_t slot, std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(),
              reference.begin() + static_cast<ptrdiff_t>(slot * n_vocab));
    sums[slot] = SumExp(logits.data(), n_vocab);
  });
  Sensitivities result;
  std::vector<double> kld(n_scored);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const GgufTensor& tensor = *tensors[i];
    const RoundedTensor rounded(tensor, parts[tensor.part] + tensor.offset, quantize,
                                engine.pool());
    RunAll(runner, windows, [&](size_t slot, std::span<const float> logits) {
      const ExpSum a = sums[slot], b = SumExp(logits.data(), n_vocab);
      kld[slot] =
          SumExpDifference(reference.data() + slot * n_vocab, a.max, logits.data(), n_vocab) /
              a.sum +
          (Log(b.sum) - Log(a.sum)) + (static_cast<double>(b.max) - static_cast<double>(a.max));
    });
    double sum = 0.0;
    for (size_t slot = 0; slot < n_scored; ++slot) {
      if (!std::isfinite(kld[slot]))
        FailNotFinite(engine, slot / windows.n_scored(),
                      windows.scored_begin() + slot % windows.n_scored());
      sum += kld[slot];
    }
    const double error = rounded.relative_error();
    result[tensor.name] =
        error > 0.0 ? std::max(0.0, sum / static_cast<double>(n_scored)) / error : 0.0;
    if (progress) progress(i + 1, tensors.size());
  }
  return result;
}

}  // namespace lutra
