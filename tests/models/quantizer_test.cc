// Whole files: the types of mixes and rules, what is refused, what is left on disk.
#include "models/quantizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "models/gguf_writer.h"
#include "models/quantize_target.h"
#include "tests/test_util.h"

namespace lutra {
namespace {

namespace fs = std::filesystem;

struct TestFolder {
  fs::path path =
      fs::temp_directory_path() / ("lutra-quantizer-" + std::to_string(std::random_device()()));
  TestFolder() { fs::create_directories(path); }
  ~TestFolder() { fs::remove_all(path); }
  std::string File(const std::string& name) const { return (path / name).string(); }
  size_t n_files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

// Eight layers of a llama whose tensors are what the rules look at; n_embd columns.
struct Source {
  std::vector<float> values;
  std::vector<uint8_t> bytes;

  explicit Source(uint64_t n_embd = 256, bool tied = false, float bad = 0.0f) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    values.resize(n_embd * 64);
    for (float& v : values) v = normal(rng) * 0.05f;
    if (bad != 0.0f) values[n_embd * 9 + 3] = bad;
    GgufWriter writer;
    writer.Set("general.architecture", "llama");
    writer.Set("llama.block_count", uint32_t{8});
    writer.Set("llama.attention.head_count", uint32_t{8});
    writer.Set("llama.attention.head_count_kv", uint32_t{2});
    const auto add = [&](const std::string& name, uint64_t rows) {
      writer.AddTensor(name, {n_embd, rows}, 0,
                       {reinterpret_cast<const uint8_t*>(values.data()), n_embd * rows * 4});
    };
    add("token_embd.weight", 64);
    for (int i = 0; i < 8; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      writer.AddTensor(blk + "attn_norm.weight", {n_embd}, 0,
                       {reinterpret_cast<const uint8_t*>(values.data()), n_embd * 4});
      for (const char* name :
           {"attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight",
            "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}) {
        add(blk + name, 16);
      }
    }
    if (!tied) add("output.weight", 64);
    bytes = writer.WriteToBytes();
  }
  GgufFile Open() const { return GgufFile::FromBytes(bytes, "source.gguf"); }
};

QuantizeOptions OptionsOf(const char* mix) {
  QuantizeOptions options;
  options.mix = FindQuantizeMix(mix);
  REQUIRE(options.mix != nullptr);
  return options;
}

std::string TypeIn(const QuantizePlan& plan, const std::string& name) {
  for (const TensorPlan& t : plan.tensors) {
    if (t.tensor->name == name) return t.type->name;
  }
  return "absent";
}

template <class Body>
ErrorCode CodeOf(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode::kInternal;
}

}  // namespace

TEST_CASE("Mixes give each tensor the type that their name is known for") {
  const Source source, tied(256, true);
  const GgufFile file = source.Open(), tied_file = tied.Open();
  const QuantizePlan q4_k_m = PlanQuantize(file, OptionsOf("q4_k_m"));
  CHECK(TypeIn(q4_k_m, "output.weight") == "Q6_K");
  CHECK(TypeIn(q4_k_m, "token_embd.weight") == "Q4_K");
  CHECK(TypeIn(q4_k_m, "blk.0.attn_v.weight") == "Q6_K");    // the first eighth
  CHECK(TypeIn(q4_k_m, "blk.1.attn_v.weight") == "Q5_K");    // gqa 4
  CHECK(TypeIn(q4_k_m, "blk.3.ffn_down.weight") == "Q6_K");  // every third
  CHECK(TypeIn(q4_k_m, "blk.4.ffn_down.weight") == "Q4_K");
  CHECK(TypeIn(q4_k_m, "blk.0.attn_norm.weight") == "F32");
  const QuantizePlan iq4_k = PlanQuantize(file, OptionsOf("IQ4_K"));
  CHECK(TypeIn(iq4_k, "blk.2.attn_v.weight") == "IQ5_K");
  CHECK(TypeIn(iq4_k, "blk.2.attn_k.weight") == "IQ4_K");
  CHECK(TypeIn(iq4_k, "output.weight") == "Q6_K");
  const QuantizePlan iq3_kl = PlanQuantize(tied_file, OptionsOf("IQ3_KL"));
  CHECK(TypeIn(iq3_kl, "token_embd.weight") == "IQ5_K");
  CHECK(TypeIn(iq3_kl, "blk.0.ffn_up.weight") == "IQ4_KS");
  CHECK(TypeIn(iq3_kl, "blk.1.ffn_up.weight") == "IQ3_K");
  CHECK(TypeIn(iq3_kl, "blk.1.attn_output.weight") == "IQ4_KS");
  const QuantizePlan q3_k_m = PlanQuantize(file, OptionsOf("Q3_K_M"));
  CHECK(TypeIn(q3_k_m, "blk.1.attn_v.weight") == "Q5_K");
  CHECK(TypeIn(q3_k_m, "blk.2.attn_v.weight") == "Q4_K");
  CHECK(TypeIn(q3_k_m, "blk.2.attn_output.weight") == "Q4_K");
}

TEST_CASE("Options overrule mixes: pure, output, embedding, expressions, in this order") {
  const Source source;
  const GgufFile file = source.Open();
  QuantizeOptions options = OptionsOf("Q4_K_M");
  options.pure = true;
  CHECK(TypeIn(PlanQuantize(file, options), "blk.0.attn_v.weight") == "Q4_K");
  CHECK(TypeIn(PlanQuantize(file, options), "output.weight") == "Q4_K");
  options.output_type = FindWritableType("iq6_k");
  options.embedding_type = FindWritableType("Q8_0");
  options.tensor_types = {{R"(blk\.[0-3]\..*attn)", FindWritableType("IQ5_KS")},
                          {"attn_q", FindWritableType("Q8_0")},
                          {"nothing", FindWritableType("Q8_0")}};
  const QuantizePlan plan = PlanQuantize(file, options);
  CHECK(TypeIn(plan, "output.weight") == "IQ6_K");
  CHECK(TypeIn(plan, "token_embd.weight") == "Q8_0");
  CHECK(TypeIn(plan, "blk.2.attn_q.weight") == "IQ5_KS");
  CHECK(TypeIn(plan, "blk.4.attn_q.weight") == "Q8_0");
  CHECK(TypeIn(plan, "blk.4.attn_k.weight") == "Q4_K");
  REQUIRE(plan.warnings.size() == 1);  // the expression that matches nothing
  options.tensor_types = {{"attn_(", FindWritableType("Q8_0")}};
  CHECK(CodeOf([&] { PlanQuantize(file, options); }) == ErrorCode::kInvalidArgument);
}

TEST_CASE("Rows that are no multiple of a block fall back to smaller blocks") {
  const Source source(96);
  const GgufFile file = source.Open();
  const auto type_for = [&](const char* mix) {
    QuantizeOptions options = OptionsOf(mix);
    options.pure = true;
    return TypeIn(PlanQuantize(file, options), "blk.0.attn_q.weight");
  };
  CHECK(type_for("IQ2_K") == "IQ4_NL");
  CHECK(type_for("Q4_K_M") == "Q5_0");
  CHECK(type_for("IQ5_K") == "Q6_0");
  CHECK(type_for("Q6_K") == "Q8_0");
  CHECK(type_for("Q4_0") == "Q4_0");
  const Source odd(40);
  QuantizeOptions options = OptionsOf("Q4_0");
  CHECK(TypeIn(PlanQuantize(odd.Open(), options), "blk.0.attn_q.weight") == "F16");
}

TEST_CASE(
    "A written file holds the planned types, the metadata and weights near the source's, at any "
    "number of threads") {
  const TestFolder folder;
  const Source source;
  const GgufFile file = source.Open();
  QuantizeOptions options = OptionsOf("IQ4_KS");
  options.override_kv = {
      {"llama.block_count", "int:8"}, {"general.name", "str:small"}, {"x.flag", "bool:true"}};
  const QuantizePlan plan = PlanQuantize(file, options);
  std::vector<uint8_t> first;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    uint64_t last = 0;
    WriteQuantized(file, options, plan, &pool, folder.File("out.gguf"),
                   [&](const QuantizeProgress& p) {
                     CHECK(p.weights_done >= last);
                     last = p.weights_done;
                   });
    CHECK(last == plan.n_weights);
    const std::vector<uint8_t> bytes = testing::ReadBytes(folder.File("out.gguf"));
    if (threads == 1) first = bytes;
    CHECK(bytes == first);
  }
  CHECK(folder.n_files() == 1);
  const GgufFile out = GgufFile::Open(folder.File("out.gguf"));
  CHECK(out.GetString("general.name") == "small");
  CHECK(out.GetBool("x.flag") == true);
  CHECK(out.GetU32("general.file_type") == 145);
  REQUIRE(out.tensors().size() == file.tensors().size());
  for (size_t i = 0; i < out.tensors().size(); ++i) {
    const GgufTensor& t = out.tensors()[i];
    INFO(t.name);
    CHECK(t.type == plan.tensors[i].type);
    CHECK(t.name == file.tensors()[i].name);
    std::vector<float> row(t.dim(0));
    FindDequantizer(t.type->id)(t.data, t.dim(0), row.data());
    double error = 0, square = 0;
    for (size_t k = 0; k < row.size(); ++k) {
      error += std::pow(static_cast<double>(row[k]) - static_cast<double>(source.values[k]), 2);
      square += std::pow(static_cast<double>(source.values[k]), 2);
    }
    CHECK(error < 0.01 * square);
  }
}

TEST_CASE("What goes wrong leaves no file, and keeps the one that was there") {
  const TestFolder folder;
  const std::string path = folder.File("out.gguf");
  { std::ofstream(path) << "old"; }
  ThreadPool pool(1);
  const Source bad(256, false, std::numeric_limits<float>::quiet_NaN());
  const GgufFile file = bad.Open();
  const QuantizeOptions options = OptionsOf("Q4_0");
  const QuantizePlan plan = PlanQuantize(file, options);
  CHECK(CodeOf([&] { WriteQuantized(file, options, plan, &pool, path, {}); }) ==
        ErrorCode::kCorrupt);
  CHECK(testing::ReadText(path) == "old");
  CHECK(folder.n_files() == 1);
  const Source good;
  const GgufFile good_file = good.Open();
  const QuantizePlan good_plan = PlanQuantize(good_file, options);
  CHECK(CodeOf([&] {
          WriteQuantized(good_file, options, good_plan, &pool, path, [](const QuantizeProgress& p) {
            if (p.i_tensor > 3) Fail(ErrorCode::kCancelled, "stop");
          });
        }) == ErrorCode::kCancelled);
  CHECK(testing::ReadText(path) == "old");
  CHECK(folder.n_files() == 1);
  CHECK(CodeOf([&] {
          WriteQuantized(good_file, options, good_plan, &pool, folder.File("absent/out.gguf"), {});
        }) != ErrorCode::kInternal);
}

TEST_CASE("Two writers of one name do not take each other for dead") {
  const TestFolder folder;
  const std::string path = folder.File("out.gguf");
  TemporaryFile first(path);
  first.Write(std::vector<uint8_t>{1, 2, 3});
  TemporaryFile second(path);
  second.Write(std::vector<uint8_t>{4, 5});
  CHECK(folder.n_files() == 2);
  first.Commit();
  CHECK(testing::ReadBytes(path) == std::vector<uint8_t>{1, 2, 3});
  second.Rewrite(std::vector<uint8_t>{7});
  second.Write(std::vector<uint8_t>{6});
  second.Commit();
  CHECK(testing::ReadBytes(path) == std::vector<uint8_t>{7, 5, 6});
  CHECK(folder.n_files() == 1);
}

TEST_CASE(
    "What a file tells about its quality: the errors of its tensors, weighted where there are "
    "importances") {
  const TestFolder folder;
  const Source source;
  const GgufFile file = source.Open();
  ThreadPool pool(2);
  Imatrix imatrix;
  ImatrixEntry& entry = imatrix.entries["blk.1.attn_q.weight"];
  entry.n_columns = 256;
  entry.counts = {1.0f};
  entry.sums.assign(256, 0.0f);
  entry.sums[7] = 1.0f;
  QuantizeOptions options = OptionsOf("IQ4_KS");
  options.imatrix = &imatrix;
  const QuantizePlan plan = PlanQuantize(file, options);
  QuantizeQuality quality;
  quality.known.reference = "source.gguf";
  quality.known.text = "text";
  quality.measure = [&](const std::string& temporary, ModelQuality* q) {
    CHECK(GgufFile::Open(temporary).tensors().size() == plan.tensors.size());
    CHECK_FALSE(fs::exists(folder.File("out.gguf")));
    q->kl_divergence = {0.25f, 0.5f};
    q->chunks = 3;
  };
  WriteQuantized(file, options, plan, &pool, folder.File("out.gguf"), {}, &quality);
  const GgufFile out = GgufFile::Open(folder.File("out.gguf"));
  const auto q = ModelQuality::Read(out);
  REQUIRE(q.has_value());
  CHECK(q->kl_divergence.value == 0.25f);
  CHECK(q->kl_divergence.error == 0.5f);
  CHECK(q->chunks == 3);
  CHECK(q->reference == "source.gguf");
  CHECK(q->importance);
  for (size_t i = 0; i < out.tensors().size(); ++i) {
    const GgufTensor &a = file.tensors()[i], &b = out.tensors()[i];
    INFO(a.name);
    std::vector<float> x(a.dim(0)), y(a.dim(0));
    double error = 0, square = 0;
    for (uint64_t row = 0; row < a.dim(1); ++row) {
      FindDequantizer(a.type->id)(a.data + row * RowBytes(*a.type, a.dim(0)), x.size(), x.data());
      FindDequantizer(b.type->id)(b.data + row * RowBytes(*b.type, b.dim(0)), y.size(), y.data());
      for (size_t k = 0; k < x.size(); ++k) {
        if (a.name == "blk.1.attn_q.weight" && k != 7) continue;
        error += std::pow(static_cast<double>(x[k]) - static_cast<double>(y[k]), 2);
        square += std::pow(static_cast<double>(x[k]), 2);
      }
    }
    CHECK(q->tensor_errors[i] == doctest::Approx(std::sqrt(error / square)).epsilon(1e-4));
  }
  const std::vector<size_t> worst = q->WorstTensors(3);
  REQUIRE(worst.size() == 3);
  CHECK(q->tensor_errors[worst[0]] ==
        *std::max_element(q->tensor_errors.begin(), q->tensor_errors.end()));
  CHECK(q->tensor_errors[worst[1]] >= q->tensor_errors[worst[2]]);
  // Without it the tensors have the same bytes.
  WriteQuantized(file, options, plan, &pool, folder.File("plain.gguf"), {});
  const GgufFile plain = GgufFile::Open(folder.File("plain.gguf"));
  CHECK_FALSE(ModelQuality::Read(plain).has_value());
  for (size_t i = 0; i < out.tensors().size(); ++i) {
    const GgufTensor &a = out.tensors()[i], &b = plain.tensors()[i];
    CHECK(std::equal(a.data, a.data + a.bytes, b.data, b.data + b.bytes));
  }
  // What measures may fail: nothing is left then.
  quality.measure = [](const std::string&, ModelQuality*) { Fail(ErrorCode::kIo, "no"); };
  CHECK(CodeOf([&] {
          WriteQuantized(file, options, plan, &pool, folder.File("third.gguf"), {}, &quality);
        }) == ErrorCode::kIo);
  CHECK(folder.n_files() == 2);
}

TEST_CASE("Quantized sources need to be allowed, and the source is never overwritten") {
  const TestFolder folder;
  const Source source;
  const GgufFile file = source.Open();
  ThreadPool pool(1);
  QuantizeOptions options = OptionsOf("Q8_0");
  WriteQuantized(file, options, PlanQuantize(file, options), &pool, folder.File("q8.gguf"), {});
  const GgufFile q8 = GgufFile::Open(folder.File("q8.gguf"));
  options = OptionsOf("Q4_K_S");
  CHECK(CodeOf([&] { PlanQuantize(q8, options); }) == ErrorCode::kUnsupported);
  options.allow_requantize = true;
  const QuantizePlan plan = PlanQuantize(q8, options);
  CHECK(CodeOf([&] { WriteQuantized(q8, options, plan, &pool, folder.File("q8.gguf"), {}); }) ==
        ErrorCode::kInvalidArgument);
  WriteQuantized(q8, options, plan, &pool, folder.File("q4.gguf"), {});
  CHECK(TypeIn(PlanQuantize(GgufFile::Open(folder.File("q4.gguf")), options),
               "blk.5.attn_q.weight") == "Q4_K");
}

TEST_CASE("A split model stays split where that is wanted, and is joined otherwise") {
  const TestFolder folder;
  const Source source;
  const GgufFile file = source.Open();
  for (int part = 0; part < 2; ++part) {
    GgufWriter writer;
    if (part == 0) {
      for (const auto& [key, value] : file.metadata()) writer.Set(key, value);
    }
    writer.Set("split.no", static_cast<uint16_t>(part));
    writer.Set("split.count", uint16_t{2});
    writer.Set("split.tensors.count", static_cast<int32_t>(file.tensors().size()));
    for (size_t i = 0; i < file.tensors().size(); ++i) {
      const GgufTensor& t = file.tensors()[i];
      if ((i < 20) == (part == 0))
        writer.AddTensor(t.name, t.dims, t.type->id, std::span<const uint8_t>(t.data, t.bytes));
    }
    writer.Write(folder.File("in-0000" + std::to_string(part + 1) + "-of-00002.gguf"));
  }
  const GgufFile split = GgufFile::Open(folder.File("in-00001-of-00002.gguf"));
  REQUIRE(split.n_parts() == 2);
  ThreadPool pool(2);
  QuantizeOptions options = OptionsOf("IQ3_K");
  WriteQuantized(split, options, PlanQuantize(split, options), &pool, folder.File("joined.gguf"),
                 {});
  const GgufFile joined = GgufFile::Open(folder.File("joined.gguf"));
  CHECK(joined.tensors().size() == file.tensors().size());
  CHECK(joined.Find("split.count") == nullptr);
  options.keep_split = true;
  const QuantizePlan plan = PlanQuantize(split, options);
  const size_t n_files = folder.n_files();
  CHECK(CodeOf([&] {
          WriteQuantized(split, options, plan, &pool, folder.File("out.gguf"),
                         [](const QuantizeProgress& p) {
                           if (p.i_tensor == 30) Fail(ErrorCode::kCancelled, "in the second part");
                         });
        }) == ErrorCode::kCancelled);
  CHECK(folder.n_files() == n_files);  // the first part has no name either
  WriteQuantized(split, options, PlanQuantize(split, options), &pool, folder.File("out.gguf"), {});
  const GgufFile parts = GgufFile::Open(folder.File("out-00001-of-00002.gguf"));
  REQUIRE(parts.n_parts() == 2);
  REQUIRE(parts.tensors().size() == joined.tensors().size());
  for (size_t i = 0; i < joined.tensors().size(); ++i) {
    CHECK(parts.tensors()[i].name == joined.tensors()[i].name);
    CHECK(std::memcmp(parts.tensors()[i].data, joined.tensors()[i].data,
                      joined.tensors()[i].bytes) == 0);
  }
}

TEST_CASE("Each expert is quantized with its own importances; another model's matrix is refused") {
  GgufWriter writer;
  std::vector<float> weights(256 * 4 * 2, 1.0f);
  writer.AddTensor("blk.0.ffn_up_exps.weight", {256, 4, 2}, 0,
                   {reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * 4});
  const std::vector<uint8_t> bytes = writer.WriteToBytes();
  const GgufFile file = GgufFile::FromBytes(bytes, "experts.gguf");
  Imatrix imatrix;
  ImatrixEntry entry;
  entry.n_columns = 512;  // the older form: all experts behind each other
  entry.sums.assign(512, 2.0f);
  for (size_t i = 256; i < 512; ++i) entry.sums[i] = 6.0f;
  entry.counts = {2.0f};
  imatrix.entries.emplace("blk.0.ffn_up_exps.weight", entry);
  QuantizeOptions options = OptionsOf("Q4_K");
  options.imatrix = &imatrix;
  CHECK(ImportanceOf(options, file.tensors()[0], 0) == std::vector<float>(256, 1.0f));
  CHECK(ImportanceOf(options, file.tensors()[0], 1) == std::vector<float>(256, 3.0f));
  options.exclude_weights = {"ffn_up"};
  CHECK(ImportanceOf(options, file.tensors()[0], 1).empty());
  options.exclude_weights.clear();
  imatrix.entries.begin()->second.n_columns = 384;
  CHECK(CodeOf([&] { PlanQuantize(file, options); }) == ErrorCode::kInvalidArgument);
}

TEST_CASE("Target sizes are read in bits a weight and in bytes") {
  CHECK(ParseTargetSize("4", 1000, 300) == 500);
  CHECK(ParseTargetSize("3.5bpw", 1600, 300) == 700);
  CHECK(ParseTargetSize("2GiB", 1, 300) == (uint64_t{2} << 30) - 300);
  CHECK(ParseTargetSize("1048576", 1, 300) == 1048276);
  CHECK(CodeOf([] { ParseTargetSize("4k", 1, 4000); }) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf([] { ParseTargetSize("1.5 parsecs", 1, 0); }) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf([] { ParseTargetSize("-3", 1, 0); }) == ErrorCode::kInvalidArgument);
}

TEST_CASE("A target size is met from below, and more bytes lose less") {
  const Source source;
  const GgufFile file = source.Open();
  ThreadPool pool(2);
  QuantizeOptions options = OptionsOf("Q8_0");
  uint64_t last = 0;
  for (const double bpw : {2.6, 3.5, 4.5, 6.0}) {
    const uint64_t target =
        ParseTargetSize(Format("%.1f", bpw), PlanQuantize(file, options).n_weights, 0);
    const QuantizePlan plan = PlanForTarget(file, options, target, {}, nullptr, &pool, {});
    INFO(bpw);
    CHECK(plan.bytes <= target);
    CHECK(plan.bytes > target - target / 20);
    CHECK(plan.bytes > last);
    last = plan.bytes;
    // The recipe gives the same plan again.
    QuantizeOptions replay = OptionsOf("Q4_0");
    const std::string recipe = RecipeText(plan);
    for (size_t begin = recipe.find('\n') + 1; begin < recipe.size();) {
      const size_t end = recipe.find('\n', begin), eq = recipe.rfind('=', end);
      replay.tensor_types.emplace_back(recipe.substr(begin, eq - begin),
                                       FindWritableType(recipe.substr(eq + 1, end - eq - 1)));
      begin = end + 1;
    }
    const QuantizePlan again = PlanQuantize(file, replay);
    for (size_t i = 0; i < plan.tensors.size(); ++i)
      CHECK(again.tensors[i].type == plan.tensors[i].type);
  }
  // Where only one tensor matters, it gets the bytes; of tensors that nothing is known of nobody cares.
  Sensitivities measured;
  for (const GgufTensor& tensor : file.tensors())
    measured[tensor.name] = tensor.name == "blk.6.attn_k.weight" ? 1.0 : 1e-7;
  const QuantizePlan steered =
      PlanForTarget(file, options, ParseTargetSize("3", PlanQuantize(file, options).n_weights, 0),
                    {}, &measured, &pool, {});
  CHECK(TypeIn(steered, "blk.6.attn_k.weight") == "Q8_0");
  CHECK(TypeIn(steered, "blk.6.attn_q.weight") != "Q8_0");
  options.tensor_types = {{"ffn_down", FindWritableType("Q8_0")}};
  const QuantizePlan plan =
      PlanForTarget(file, options, ParseTargetSize("5", PlanQuantize(file, options).n_weights, 0),
                    {}, nullptr, &pool, {});
  CHECK(TypeIn(plan, "blk.3.ffn_down.weight") == "Q8_0");
  CHECK(CodeOf([&] { PlanForTarget(file, options, 100, {}, nullptr, &pool, {}); }) ==
        ErrorCode::kInvalidArgument);
}

}  // namespace lutra
