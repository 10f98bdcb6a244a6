// lutra inspect: what a GGUF file holds, as text or JSON.
#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/args.h"
#include "cli/command.h"
#include "cli/quantize_quality.h"
#include "kernels/base/error.h"
#include "kernels/base/utf8.h"
#include "models/gguf.h"

namespace lutra::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kShortElements = 8;  // without --full
constexpr size_t kShortStringBytes = 80;

struct Totals {
  uint64_t weights = 0;
  uint64_t bytes = 0;
  struct OfType {
    uint64_t tensors = 0;
    uint64_t weights = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string, OfType> types;
};

Totals Sum(const GgufFile& file) {
  Totals totals;
  for (const GgufTensor& t : file.tensors()) {
    Totals::OfType& type = totals.types[t.type->name];
    ++type.tensors;
    type.weights += t.n_weights();
    type.bytes += t.bytes;
    totals.weights += t.n_weights();
    totals.bytes += t.bytes;
  }
  return totals;
}

double BitsPerWeight(uint64_t bytes, uint64_t weights) {
  return weights == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

std::string ShapeText(const GgufTensor& tensor) {
  std::string text = "[";
  for (size_t i = tensor.dims.size(); i-- > 0;) {
    text += Format("%" PRIu64 "%s", tensor.dims[i], i == 0 ? "" : ", ");
  }
  return text + "]";
}

void PrintText(const GgufFile& file, bool tensors, bool full) {
  std::printf("file       %s\nversion    %u\nalignment  %" PRIu64 "\nbytes      %" PRIu64 "\n",
              Printable(file.path(), 400).c_str(), file.version(), file.alignment(),
              file.file_bytes());
  if (file.n_parts() > 1) {
    std::printf("parts      %zu\n", file.n_parts());
    for (size_t i = 0; i < file.n_parts(); ++i) {
      std::printf("  %s  %zu bytes\n", Printable(file.part(i).path(), 400).c_str(),
                  file.part(i).bytes().size());
    }
  }
  std::printf("\nmetadata: %zu keys\n", file.metadata().size());
  for (const auto& [key, value] : file.metadata()) {
    const std::string text =
        value.ToText(full ? value.count : kShortElements, full ? SIZE_MAX : kShortStringBytes);
    std::printf("  %s  %s  %s\n", Printable(key).c_str(), value.TypeText().c_str(), text.c_str());
  }
  if (tensors) {
    size_t width = 0;
    for (const GgufTensor& t : file.tensors()) width = std::max(width, t.name.size());
    std::printf("\ntensors: %zu, shapes [rows, columns]\n", file.tensors().size());
    for (const GgufTensor& t : file.tensors()) {
      std::printf("  %-*s  %-8s  %-20s  %" PRIu64 " bytes\n", static_cast<int>(width),
                  Printable(t.name).c_str(), t.type->name, ShapeText(t).c_str(), t.bytes);
    }
  }
  if (const auto quality = ModelQuality::Read(file))
    std::printf("\n%s", QualityText(file, *quality).c_str());
  const Totals totals = Sum(file);
  std::printf("\ntotal: %zu tensors, %" PRIu64 " weights, %" PRIu64
              " bytes, %.3f bits per weight\n",
              file.tensors().size(), totals.weights, totals.bytes,
              BitsPerWeight(totals.bytes, totals.weights));
  for (const auto& [name, type] : totals.types) {
    std::printf("  %-8s  %5" PRIu64 " tensors  %14" PRIu64 " weights  %14" PRIu64 " bytes\n",
                name.c_str(), type.tensors, type.weights, type.bytes);
  }
}

Json TextJson(std::string_view text, bool full) {
  if (!full && text.size() > kShortStringBytes) {
    return Utf8Sanitize(text.substr(0, Utf8CompletePrefix(text.substr(0, kShortStringBytes)))) +
           "...";
  }
  return Utf8Sanitize(text);
}

// The double nearest to the shortest text of the float: 1e-05, not 9.999999747378752e-06.
double Shortest(float v) {
  char text[64];
  const char* end = std::to_chars(text, text + sizeof(text), v).ptr;
  double shortest = static_cast<double>(v);
  std::from_chars(text, end, shortest);
  return shortest;
}

// JSON has no infinities and no NaN: those become text.
Json NumberJson(const GgufValue& value, uint64_t i) {
  if (value.element_type == GgufType::kF32 || value.element_type == GgufType::kF64) {
    const double v = value.AsDouble(i);
    if (!std::isfinite(v)) return std::isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity";
    if (value.element_type == GgufType::kF64) return v;
    return Shortest(static_cast<float>(v));
  }
  if (value.element_type == GgufType::kBool) return *value.AsInt(i) != 0;
  if (value.element_type == GgufType::kU64) return *value.AsUint(i);
  return *value.AsInt(i);
}

Json ValueJson(const GgufValue& value, bool full) {
  const auto element = [&](uint64_t i) -> Json {
    return value.element_type == GgufType::kString ? TextJson(value.strings[i], full)
                                                   : NumberJson(value, i);
  };
  if (!value.is_array()) return element(0);
  Json out = Json::array();
  const uint64_t n = full ? value.count : std::min(value.count, kShortElements);
  for (uint64_t i = 0; i < n; ++i) out.push_back(element(i));
  return out;
}

// Without --full long arrays are cut to their first elements: "count" tells.
Json MetadataJson(const GgufFile& file, bool full) {
  Json out = Json::array();
  for (const auto& [key, value] : file.metadata()) {
    Json entry = {{"key", Utf8Sanitize(key)}, {"type", GgufTypeName(value.type)}};
    if (value.is_array()) {
      entry["element_type"] = GgufTypeName(value.element_type);
      entry["count"] = value.count;
    }
    entry["value"] = ValueJson(value, full);
    out.push_back(std::move(entry));
  }
  return out;
}

Json QualityJson(const GgufFile& file, const ModelQuality& q) {
  const auto pair = [](const ModelQuality::Value& v) -> Json {
    return {{"value", Shortest(v.value)}, {"error", Shortest(v.error)}};
  };
  Json tensors = Json::object();
  for (size_t i = 0; i < q.tensor_errors.size(); ++i)
    tensors[Utf8Sanitize(file.tensors()[i].name)] = Shortest(q.tensor_errors[i]);
  return {{"reference", Utf8Sanitize(q.reference)},
          {"text", Utf8Sanitize(q.text)},
          {"text_bytes", q.text_bytes},
          {"text_sha256", Utf8Sanitize(q.text_sha256)},
          {"context", q.context},
          {"chunks", q.chunks},
          {"tokens", q.tokens},
          {"perplexity", pair(q.perplexity)},
          {"reference_perplexity", pair(q.reference_perplexity)},
          {"perplexity_ratio", pair(q.perplexity_ratio)},
          {"kl_divergence", pair(q.kl_divergence)},
          {"kl_divergence_99", Shortest(q.kl_divergence_99)},
          {"kl_divergence_max", Shortest(q.kl_divergence_max)},
          {"same_top", pair(q.same_top)},
          {"importance", q.importance},
          {"tensor_errors", std::move(tensors)}};
}

void PrintJson(const GgufFile& file, bool tensors, bool full) {
  const Totals totals = Sum(file);
  Json out = {{"file", Utf8Sanitize(file.path())},
              {"version", file.version()},
              {"alignment", file.alignment()},
              {"bytes", file.file_bytes()}};
  Json& parts = out["parts"] = Json::array();
  for (size_t i = 0; i < file.n_parts(); ++i) {
    parts.push_back(
        {{"file", Utf8Sanitize(file.part(i).path())}, {"bytes", file.part(i).bytes().size()}});
  }
  out["metadata"] = MetadataJson(file, full);
  if (tensors) {
    Json& list = out["tensors"] = Json::array();
    for (const GgufTensor& t : file.tensors()) {
      list.push_back({{"name", Utf8Sanitize(t.name)},
                      {"type", t.type->name},
                      {"shape", std::vector<uint64_t>(t.dims.rbegin(), t.dims.rend())},
                      {"bytes", t.bytes},
                      {"part", t.part},
                      {"offset", t.offset}});
    }
  }
  if (const auto quality = ModelQuality::Read(file)) out["quality"] = QualityJson(file, *quality);
  Json types = Json::object();
  for (const auto& [name, type] : totals.types) {
    types[name] = {{"tensors", type.tensors}, {"weights", type.weights}, {"bytes", type.bytes}};
  }
  out["totals"] = {{"tensors", file.tensors().size()},
                   {"weights", totals.weights},
                   {"bytes", totals.bytes},
                   {"bits_per_weight", BitsPerWeight(totals.bytes, totals.weights)},
                   {"types", std::move(types)}};
  std::printf("%s\n", out.dump(2).c_str());
}

}  // namespace

int RunInspect(int argc, char** argv) {
  CLI::App app("Shows what a GGUF file holds: metadata, tensors, sizes.");
  std::string path;
  bool json = false;
  bool tensors = true;
  bool full = false;
  app.add_option("FILE", path, "The .gguf file; of a split model, its first part")->required();
  app.add_flag("--json", json, "Print JSON");
  app.add_flag("--tensors,!--no-tensors", tensors, "List the tensors (default: yes)");
  app.add_flag("--full", full, "Print long arrays and strings whole");
  if (const std::optional<int> status = ParseArgs(app, argc, argv)) return *status;

  const GgufFile file = GgufFile::Open(path);
  if (json) {
    PrintJson(file, tensors, full);
  } else {
    PrintText(file, tensors, full);
  }
  return kExitOk;
}

}  // namespace lutra::cli
