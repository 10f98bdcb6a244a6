// Sensitivities of tensors: against whole files with one tensor rounded.
#include "engine/sensitivity.h"

#include "engine/kl_divergence.h"
#include "kernels/dequantize.h"
#include "kernels/quantize/quantize.h"
#include "models/gguf_writer.h"
#include "tests/engine/eval_fixture.h"

namespace lutra {
namespace {

using testing::EvalFixture;
using testing::EvalIds;
using testing::TinyArch;

}  // namespace

TEST_CASE(
    "A sensitivity is the divergence of a model with one rounded tensor over the error of the "
    "rounding") {
  EvalFixture f;
  const EvalWindows windows(EvalIds(130, 5), 1, {40, -1, 0});
  const auto source = f.Make(TinyArch("llama"), 40);
  const GgufFile& file = source->model().file();
  QuantizeOptions quantize;
  quantize.mix = FindQuantizeMix("Q8_0");
  EngineOptions options;
  options.model_path = file.path();
  options.threads = 1;
  const std::vector<uint8_t> before = testing::ReadBytes(file.path());
  size_t calls = 0;
  const Sensitivities one =
      MeasureSensitivities(options, quantize, windows, [&](size_t done, size_t all) {
        CHECK(done == calls);
        CHECK(done <= all);
        ++calls;
      });
  CHECK(calls == one.size() + 1);
  CHECK(testing::ReadBytes(file.path()) == before);
  options.threads = 2;
  options.batch_tokens = 7;
  CHECK(MeasureSensitivities(options, quantize, windows) == one);

  size_t n_checked = 0;
  for (const char* name : {"token_embd.weight", "blk.0.attn_v.weight", "blk.1.ffn_down.weight"}) {
    INFO(name);
    REQUIRE(one.contains(name));
    const GgufTensor& tensor = *file.FindTensor(name);
    REQUIRE(tensor.type->id == 0);
    const uint64_t n = tensor.dim(0), n_rows = tensor.n_weights() / n;
    const TensorTypeInfo& type = *FallbackForRows(FindWritableType("IQ3_K"), n);
    RowQuantizer quantizer(type.id);
    std::vector<float> rounded(tensor.n_weights());
    std::vector<uint8_t> row(RowBytes(type, n));
    RowError error;
    for (uint64_t r = 0; r < n_rows; ++r) {
      const std::span<const float> x(reinterpret_cast<const float*>(tensor.data) + r * n, n);
      const std::span<float> y(rounded.data() + r * n, n);
      REQUIRE(quantizer.Quantize(x, {}, row.data()));
      FindDequantizer(type.id)(row.data(), n, y.data());
      error += ErrorOf(x, y, {});
    }
    GgufWriter writer;
    for (const auto& [key, value] : file.metadata()) writer.Set(key, value);
    for (const GgufTensor& t : file.tensors()) {
      writer.AddTensor(
          t.name, t.dims, t.type->id,
          t.name == name ? std::span(reinterpret_cast<const uint8_t*>(rounded.data()), tensor.bytes)
                         : std::span(t.data, t.bytes));
    }
    EngineOptions other;
    other.model_path = f.folder / "rounded.gguf";
    other.need_tokenizer = false;
    writer.Write(other.model_path);
    Engine tested(ForEvaluation(other, 40));
    const KlReport report = CompareModels(*source, tested, windows);
    CHECK(report.kld.value > 0);
    CHECK(one.at(name) == doctest::Approx(report.kld.value / error.relative()).epsilon(1e-9));
    ++n_checked;
  }
  CHECK(n_checked == 3);
}

}  // namespace lutra
