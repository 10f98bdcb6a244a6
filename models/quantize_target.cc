#include "models/quantize_target.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cmath>
#include <map>
#include <regex>
#include <string_view>

#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "kernels/quantize/quantize.h"

namespace lutra {
namespace {

constexpr uint64_t kSampleRows = 96;  // of a tensor: errors of rows differ by a few percent

// KL divergence of the output over relative error, by what a tensor does, at sixths of the depth: what engine/sensitivity.h measures on the
// demo model (6 layers), tempered.
constexpr size_t kDepths = 6;
struct Profile {
  std::string_view part;
  double factor[kDepths];
};
constexpr Profile kProfiles[] = {
    {"attn_output", {0.009, 0.009, 0.020, 0.026, 0.037, 0.033}},
    {"attn_v", {0.008, 0.009, 0.017, 0.025, 0.040, 0.037}},
    {"attn_k", {0.007, 0.007, 0.015, 0.016, 0.028, 0.036}},
    {"attn_q", {0.005, 0.006, 0.012, 0.015, 0.022, 0.029}},
    {"ffn_down", {0.112, 0.051, 0.047, 0.054, 0.093, 0.099}},
    {"ffn_gate", {0.062, 0.022, 0.030, 0.051, 0.090, 0.101}},
    {"ffn_up", {0.102, 0.024, 0.027, 0.038, 0.066, 0.077}},
};
constexpr double kOutputFactor = 1.47, kEmbeddingFactor = 0.15, kOtherFactor = 0.02;

// "attn_q.weight" of "blk.3.attn_q.weight"; other names as they are.
std::string_view PartOf(std::string_view name) {
  return name.starts_with("blk.") ? name.substr(std::min(name.find('.', 4), name.size() - 1) + 1)
                                  : name;
}

// Small errors only are proportional to divergences: tensors that hardly matter then can matter more when they are rounded coarsely.
// So sensitivities are drawn half way (in logarithms) to the mean of the same part over the layers.
Sensitivities Tempered(const Sensitivities& measured) {
  std::map<std::string_view, std::pair<double, double>> sums;
  for (const auto& [name, value] : measured) {
    sums[PartOf(name)].first += value;
    sums[PartOf(name)].second += 1.0;
  }
  Sensitivities result;
  for (const auto& [name, value] : measured) {
    const auto& [sum, n] = sums[PartOf(name)];
    const double mean = sum / n;
    result[name] = std::sqrt(std::max(value, 0.1 * mean) * mean);
  }
  return result;
}

double FactorOf(const GgufFile& file, const GgufTensor& tensor, const Sensitivities* measured) {
  if (measured != nullptr) {
    const auto it = measured->find(tensor.name);
    return it == measured->end() ? 0.0 : it->second;
  }
  if (IsOutput(file, tensor)) return kOutputFactor;  // also a tied embedding
  if (IsEmbedding(tensor)) return kEmbeddingFactor;
  const std::string arch(file.GetString("general.architecture").value_or(""));
  const double n_layers = std::max(1u, file.GetU32(arch + ".block_count").value_or(1));
  uint32_t layer = 0;
  if (tensor.name.starts_with("blk."))
    std::from_chars(tensor.name.data() + 4, tensor.name.data() + tensor.name.size(), layer);
  const double place = std::min(1.0, layer / std::max(1.0, n_layers - 1)) * (kDepths - 1);
  const size_t below = std::min(static_cast<size_t>(place), kDepths - 2);
  for (const Profile& p : kProfiles) {
    if (tensor.name.find(p.part) == std::string::npos) continue;
    const double factor = p.factor[below] + (place - static_cast<double>(below)) *
                                                (p.factor[below + 1] - p.factor[below]);
    return factor * kDepths /
           n_layers;  // a layer's share of the stream falls with their number, the output's does not
  }
  return kOtherFactor;
}

// A type for a tensor: what it costs, and what it loses.
struct Choice {
  const TensorTypeInfo* type;
  uint64_t bytes;
  double loss = 0.0;
};

// The relative error of the sampled rows.
double MeasureError(const QuantizeOptions& options, const GgufTensor& tensor,
                    const TensorTypeInfo& type) {
  const uint64_t n = tensor.dim(0), n_rows = tensor.n_weights() / n;
  const uint64_t samples = std::min(n_rows, kSampleRows);
  const uint64_t row_bytes = RowBytes(*tensor.type, n);
  const DequantizeFn decode = FindDequantizer(tensor.type->id),
                     decode_out = FindDequantizer(type.id);
  RowQuantizer quantizer(type.id);
  std::vector<float> x(n), y(n);
  std::vector<uint8_t> row(RowBytes(type, n));
  RowError sum;
  std::vector<float> importance;
  uint64_t importance_of = UINT64_MAX;
  for (uint64_t s = 0; s < samples; ++s) {
    const uint64_t r = s * n_rows / samples;
    const uint64_t matrix = r / tensor.dim(1);
    if (matrix != importance_of) {
      importance = ImportanceOf(options, tensor, matrix);
      importance_of = matrix;
    }
    decode(tensor.data + r * row_bytes, n, x.data());
    quantizer.Quantize(x, importance, row.data());
    decode_out(row.data(), n, y.data());
    sum += ErrorOf(x, y, importance);
  }
  return sum.relative();
}

// Leaves the choices that are best for some price of a byte: ascending bytes, falling loss, slopes that flatten.
void KeepHull(std::vector<Choice>* choices) {
  std::sort(choices->begin(), choices->end(), [](const Choice& a, const Choice& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.loss < b.loss;
  });
  std::vector<Choice> hull;
  const auto slope = [](const Choice& a, const Choice& b) {
    return (a.loss - b.loss) / static_cast<double>(b.bytes - a.bytes);
  };
  for (const Choice& c : *choices) {
    if (!hull.empty() && (c.loss >= hull.back().loss || c.bytes == hull.back().bytes)) continue;
    while (hull.size() >= 2 && slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), c))
      hull.pop_back();
    hull.push_back(c);
  }
  *choices = std::move(hull);
}

std::vector<const TensorTypeInfo*> DefaultCandidates() {
  std::vector<const TensorTypeInfo*> types;
  for (const char* name : {"IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K", "IQ4_KSS", "IQ4_KS",
                           "IQ4_K", "IQ5_KS", "IQ5_K", "IQ6_K", "IQ4_NL", "Q5_0", "Q6_0", "Q8_0"}) {
    if (const TensorTypeInfo* type = FindWritableType(name)) types.push_back(type);
  }
  return types;
}

}  // namespace

uint64_t BytesBesideTensors(const GgufFile& file) {
  // A report of quality has some text and a number a tensor; types' names and an importance matrix' file are noted, too.
  constexpr uint64_t kAdded = 8192, kAddedPerTensor = 16;
  uint64_t bytes = file.file_bytes() + kAdded;
  for (const GgufTensor& tensor : file.tensors()) {
    bytes -= tensor.bytes;
    bytes += file.alignment() + kAddedPerTensor;
  }
  return bytes;
}

uint64_t ParseTargetSize(const std::string& text, uint64_t n_weights, uint64_t beside) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, text.data() + text.size());
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  static const std::map<std::string, double> kUnits = {
      {"b", 1.0},
      {"k", 1e3},
      {"kb", 1e3},
      {"kib", 1024.0},
      {"m", 1e6},
      {"mb", 1e6},
      {"mib", 1048576.0},
      {"g", 1e9},
      {"gb", 1e9},
      {"gib", 1073741824.0},
      {"t", 1e12},
      {"tb", 1e12},
      {"tib", 1099511627776.0},
  };
  if (error == std::errc() && value > 0.0 && std::isfinite(value)) {
    if ((unit.empty() || unit == "bpw") && value <= 32.0)
      return static_cast<uint64_t>(value * static_cast<double>(n_weights) / 8.0);
    const auto it = kUnits.find(unit.empty() && value >= 1024.0 ? "b" : unit);
    if (it != kUnits.end() && value * it->second < 1e18) {
      const uint64_t bytes = static_cast<uint64_t>(value * it->second);
      if (bytes > beside) return bytes - beside;
      Fail(ErrorCode::kInvalidArgument,
           "--target: %" PRIu64
           " bytes are too few: metadata and padding alone take up to %" PRIu64,
           bytes, beside);
    }
  }
  Fail(ErrorCode::kInvalidArgument,
       "--target: '%s' is neither bits a weight up to 32 (3.5) nor a size (4GB, 3.8GiB, 500MiB)",
       Printable(text, 40).c_str());
}

QuantizePlan PlanForTarget(const GgufFile& file, const QuantizeOptions& options,
                           uint64_t target_bytes, std::span<const TensorTypeInfo* const> types,
                           const Sensitivities* sensitivities, ThreadPool* pool,
                           const std::function<void(size_t done, size_t all)>& progress) {
  const std::vector<const TensorTypeInfo*> given =
      types.empty() ? DefaultCandidates()
                    : std::vector<const TensorTypeInfo*>(types.begin(), types.end());
  // What is fixed: rules of the options, decided as ever.
  QuantizeOptions fixed = options;
  fixed.allow_requantize = true;
  fixed.ignore_imatrix_rules = true;
  QuantizePlan plan = PlanQuantize(file, fixed);
  const auto is_fixed = [&](const GgufTensor& tensor) {
    if (options.output_type != nullptr && IsOutput(file, tensor)) return true;
    if (options.embedding_type != nullptr && IsEmbedding(tensor)) return true;
    return std::any_of(
        options.tensor_types.begin(), options.tensor_types.end(),
        [&](const auto& rule) { return std::regex_search(tensor.name, std::regex(rule.first)); });
  };
  std::vector<std::vector<Choice>> choices(plan.tensors.size());
  uint64_t least = 0;
  std::vector<std::pair<size_t, size_t>> tasks;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    TensorPlan& t = plan.tensors[i];
    const GgufTensor& tensor = *t.tensor;
    if (!IsQuantizable(tensor) || (options.leave_output && tensor.name == "output.weight") ||
        is_fixed(tensor)) {
      choices[i].push_back({t.type, t.bytes});
      continue;
    }
    for (const TensorTypeInfo* type : given) {
      if (tensor.dim(0) % type->block_weights != 0) continue;
      choices[i].push_back(
          {type, RowBytes(*type, tensor.dim(0)) * (tensor.n_weights() / tensor.dim(0))});
    }
    if (choices[i].empty()) {
      const TensorTypeInfo* type = FallbackForRows(given.front(), tensor.dim(0));
      choices[i].push_back(
          {type, RowBytes(*type, tensor.dim(0)) * (tensor.n_weights() / tensor.dim(0))});
    }
    for (size_t k = 0; choices[i].size() > 1 && k < choices[i].size(); ++k)
      tasks.emplace_back(i, k);
  }
  const Sensitivities tempered_values =
      sensitivities != nullptr ? Tempered(*sensitivities) : Sensitivities();
  const Sensitivities* tempered = sensitivities != nullptr ? &tempered_values : nullptr;
  // A batch at a time, so that progress can be told.
  const size_t batch = static_cast<size_t>(pool->n_threads()) * 8;
  for (size_t begin = 0; begin < tasks.size(); begin += batch) {
    if (progress) progress(begin, tasks.size());
    pool->Region([&] {
      pool->For(std::min(batch, tasks.size() - begin), [&](size_t k) {
        const auto [i, c] = tasks[begin + k];
        choices[i][c].loss = FactorOf(file, *plan.tensors[i].tensor, tempered) *
                             MeasureError(options, *plan.tensors[i].tensor, *choices[i][c].type);
      });
    });
  }
  if (progress) progress(tasks.size(), tasks.size());

  std::vector<size_t> at(choices.size(), 0);
  for (std::vector<Choice>& c : choices) {
    KeepHull(&c);
    least += c.front().bytes;
  }
  if (least > target_bytes) {
    Fail(ErrorCode::kInvalidArgument,
         "--target: %" PRIu64 " bytes are too few: the smallest candidates take %" PRIu64
         " (%.3f bits a weight)",
         target_bytes, least,
         8.0 * static_cast<double>(least) / static_cast<double>(plan.n_weights));
  }
  // Always the step that lowers the loss most for its bytes; steps that do not fit are passed over.
  uint64_t spent = least;
  for (;;) {
    size_t best = choices.size();
    double best_slope = 0.0;
    for (size_t i = 0; i < choices.size(); ++i) {
      if (at[i] + 1 >= choices[i].size()) continue;
      const Choice &now = choices[i][at[i]], &next = choices[i][at[i] + 1];
      if (spent + (next.bytes - now.bytes) > target_bytes) continue;
      const double slope = (now.loss - next.loss) / static_cast<double>(next.bytes - now.bytes);
      if (slope > best_slope) {
        best_slope = slope;
        best = i;
      }
    }
    if (best == choices.size()) break;
    spent += choices[best][at[best] + 1].bytes - choices[best][at[best]].bytes;
    ++at[best];
  }
  // The plan itself comes from PlanQuantize, which knows what to refuse.
  QuantizeOptions chosen = options;
  chosen.tensor_types.clear();
  static const std::regex special(R"([.^$|()\[\]{}*+?\\])");
  std::map<uint32_t, uint64_t> weights_of;
  for (size_t i = 0; i < choices.size(); ++i) {
    const GgufTensor& tensor = *plan.tensors[i].tensor;
    const TensorTypeInfo* type = choices[i][at[i]].type;
    if (type == tensor.type && !IsQuantizable(tensor)) continue;
    weights_of[type->id] += tensor.n_weights();
    chosen.tensor_types.emplace_back("^" + std::regex_replace(tensor.name, special, R"(\$&)") + "$",
                                     type);
  }
  QuantizePlan result = PlanQuantize(file, chosen);
  // The file is called after the type that most weights have.
  uint64_t most = 0;
  for (const auto& [id, n] : weights_of) {
    if (n <= most) continue;
    for (const QuantizeMix& mix : AllQuantizeMixes()) {
      if (mix.default_type != id) continue;
      most = n;
      result.file_type = mix.file_type;
      break;
    }
  }
  return result;
}

std::string RecipeText(const QuantizePlan& plan) {
  static const std::regex special(R"([.^$|()\[\]{}*+?\\])");
  std::string text = Format("# %.3f bits a weight, %" PRIu64 " bytes of tensors\n",
                            plan.bits_per_weight(), plan.bytes);
  for (const TensorPlan& t : plan.tensors) {
    if (!IsQuantizable(*t.tensor)) continue;
    text +=
        "^" + std::regex_replace(t.tensor->name, special, R"(\$&)") + "$=" + t.type->name + "\n";
  }
  return text;
}

}  // namespace lutra
