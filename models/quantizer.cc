#include "models/quantizer.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <mutex>
#include <regex>

#include "kernels/base/aligned.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/dequantize.h"
#include "kernels/quantize/quantize.h"
#include "models/gguf_split_name.h"
#include "models/gguf_writer.h"

namespace lutra {
namespace {

constexpr uint64_t kSlabWeights =
    uint64_t{1} << 23;  // weights between two writes: 32 MiB as floats, were they all floats
constexpr uint64_t kTaskWeights = uint64_t{1} << 15;  // weights a thread takes at a time

bool Mentions(const std::vector<std::string>& parts, const std::string& name) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](const std::string& p) { return name.find(p) != std::string::npos; });
}

const ImatrixEntry* EntryOf(const QuantizeOptions& options, const GgufTensor& tensor) {
  if (options.imatrix == nullptr || Mentions(options.exclude_weights, tensor.name)) return nullptr;
  if (!options.include_weights.empty() && !Mentions(options.include_weights, tensor.name))
    return nullptr;
  return options.imatrix->Find(tensor.name);
}

std::regex Compile(const std::string& expression) {
  try {
    return std::regex(expression, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& e) {
    Fail(ErrorCode::kInvalidArgument, "tensor types: '%s' is no regular expression: %s",
         Printable(expression, 80).c_str(), e.what());
  }
}

// One thread's tools; handed from task to task.
struct Worker {
  explicit Worker(uint32_t type_id) : quantizer(type_id) {}
  RowQuantizer quantizer;
  std::vector<float> row, decoded;
};

class Workers {
 public:
  explicit Workers(uint32_t type_id) : type_id_(type_id) {}
  std::unique_ptr<Worker> Take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<Worker> worker = std::move(idle_.back());
        idle_.pop_back();
        return worker;
      }
    }
    return std::make_unique<Worker>(type_id_);
  }
  void Give(std::unique_ptr<Worker> worker) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(worker));
  }

 private:
  uint32_t type_id_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

// Converts one tensor, slab by slab. With `error`, measures it.
void ConvertTensor(const GgufFile& file, const QuantizeOptions& options, const TensorPlan& plan,
                   ThreadPool* pool, const GgufByteSink& sink,
                   const std::function<void(uint64_t weights)>& advance, RowError* error) {
  const GgufTensor& tensor = *plan.tensor;
  const uint64_t n = tensor.dim(0), n_rows = tensor.n_weights() / n;
  const uint64_t matrix_rows = tensor.dim(1);
  const uint64_t in_row = RowBytes(*tensor.type, n), out_row = RowBytes(*plan.type, n);
  const DequantizeFn decode = FindDequantizer(tensor.type->id),
                     decode_out = FindDequantizer(plan.type->id);
  const uint64_t slab_rows = std::clamp<uint64_t>(kSlabWeights / n, 1, n_rows);
  const uint64_t task_rows = std::clamp<uint64_t>(kTaskWeights / n, 1, slab_rows);
  AlignedArray<uint8_t> out(slab_rows * out_row);
  std::vector<RowError> errors(error != nullptr ? slab_rows : 0);
  Workers workers(plan.type->id);
  std::vector<float> importance;
  uint64_t importance_of = UINT64_MAX;

  for (uint64_t begin = 0; begin < n_rows;) {
    const uint64_t matrix = begin / matrix_rows;
    const uint64_t end = std::min({begin + slab_rows, n_rows, (matrix + 1) * matrix_rows});
    if (matrix != importance_of) {
      importance = ImportanceOf(options, tensor, matrix);
      importance_of = matrix;
    }
    std::atomic<uint64_t> bad_row = UINT64_MAX;
    std::atomic<bool> out_of_memory = false;
    const uint64_t n_tasks = (end - begin + task_rows - 1) / task_rows;
    pool->Region([&] {
      pool->For(n_tasks, [&](size_t task) {
        try {
          std::unique_ptr<Worker> worker = workers.Take();
          worker->row.resize(n);
          worker->decoded.resize(n);
          for (uint64_t r = begin + task * task_rows;
               r < std::min(end, begin + (task + 1) * task_rows); ++r) {
            decode(tensor.data + r * in_row, n, worker->row.data());
            if (!worker->quantizer.Quantize(worker->row, importance,
                                            out.data() + (r - begin) * out_row)) {
              uint64_t seen = bad_row.load();
              while (r < seen && !bad_row.compare_exchange_weak(seen, r)) {
              }
            } else if (error != nullptr) {
              decode_out(out.data() + (r - begin) * out_row, n, worker->decoded.data());
              errors[r - begin] = ErrorOf(worker->row, worker->decoded, importance);
            }
          }
          workers.Give(std::move(worker));
        } catch (const std::bad_alloc&) {
          out_of_memory = true;
        }
      });
    });
    if (out_of_memory) throw std::bad_alloc();
    if (bad_row != UINT64_MAX) {
      Fail(ErrorCode::kCorrupt,
           "%s: tensor '%s': row %" PRIu64
           " holds a NaN or an infinity: the source model is damaged",
           Printable(file.path(), 400).c_str(), Printable(tensor.name, 80).c_str(), bad_row.load());
    }
    for (uint64_t r = begin; error != nullptr && r < end; ++r) *error += errors[r - begin];
    sink({out.data(), (end - begin) * out_row});
    file.part(tensor.part).Release(tensor.data + begin * in_row, (end - begin) * in_row);
    advance((end - begin) * n);
    begin = end;
  }
}

void CopyTensor(const GgufFile& file, const GgufTensor& tensor, const GgufByteSink& sink) {
  constexpr uint64_t kPiece = uint64_t{16} << 20;
  for (uint64_t at = 0; at < tensor.bytes; at += kPiece) {
    const uint64_t n = std::min(kPiece, tensor.bytes - at);
    sink({tensor.data + at, n});
    file.part(tensor.part).Release(tensor.data + at, n);
  }
}

template <class T>
T ParseNumber(const std::string& key, const std::string& text) {
  T v{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size()) {
    Fail(ErrorCode::kInvalidArgument, "override of '%s': '%s' is no number of that kind",
         Printable(key, 80).c_str(), Printable(text, 40).c_str());
  }
  return v;
}

void Override(GgufWriter* writer, const GgufFile& file, const std::string& key,
              const std::string& value) {
  const size_t colon = value.find(':');
  const std::string kind = value.substr(0, colon);
  const std::string text = colon == std::string::npos ? "" : value.substr(colon + 1);
  if (kind == "int") {
    const int64_t v = ParseNumber<int64_t>(key, text);
    const GgufValue* old = file.Find(key);
    // An integer key keeps its width.
    if (old != nullptr && old->type == GgufType::kI32)
      return writer->Set(key, static_cast<int32_t>(v));
    if (old != nullptr && old->type == GgufType::kU64)
      return writer->Set(key, static_cast<uint64_t>(v));
    if (old != nullptr && old->type == GgufType::kI64) return writer->Set(key, v);
    if (v < 0 || v > UINT32_MAX) return writer->Set(key, v);
    return writer->Set(key, static_cast<uint32_t>(v));
  }
  if (kind == "float") return writer->Set(key, ParseNumber<float>(key, text));
  if (kind == "bool" && (text == "true" || text == "false"))
    return writer->Set(key, text == "true");
  if (kind == "str") return writer->Set(key, std::string_view(text));
  Fail(ErrorCode::kInvalidArgument,
       "override of '%s': '%s' must be int:NUMBER, float:NUMBER, bool:true, bool:false or str:TEXT",
       Printable(key, 80).c_str(), Printable(value, 40).c_str());
}

GgufWriter Metadata(const GgufFile& file, const QuantizeOptions& options,
                    const QuantizePlan& plan) {
  GgufWriter writer;
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with("split.") && !key.starts_with(kQualityPrefix)) writer.Set(key, value);
  }
  writer.Set("general.quantization_version", uint32_t{2});
  writer.Set("general.file_type", plan.file_type);
  if (options.imatrix != nullptr) {
    writer.Set("quantize.imatrix.file", std::string_view(options.imatrix->path));
    if (!options.imatrix->datasets.empty())
      writer.Set("quantize.imatrix.dataset", std::string_view(options.imatrix->datasets[0]));
    writer.Set("quantize.imatrix.entries_count",
               static_cast<int32_t>(options.imatrix->entries.size()));
    writer.Set("quantize.imatrix.chunks_count", static_cast<int32_t>(options.imatrix->chunk_count));
  }
  for (const auto& [key, value] : options.override_kv) Override(&writer, file, key, value);
  return writer;
}

void CheckDisk(const std::string& path, uint64_t bytes) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct statvfs fs;
  if (::statvfs(folder.c_str(), &fs) != 0) return;  // creating the file will say what is wrong
  const uint64_t free = static_cast<uint64_t>(fs.f_bavail) * fs.f_frsize;
  if (free < bytes) {
    Fail(ErrorCode::kIo,
         "%s: needs %.1f MiB, the disk has %.1f MiB free: make room or name another place",
         Printable(path, 400).c_str(), static_cast<double>(bytes) / 1048576.0,
         static_cast<double>(free) / 1048576.0);
  }
}

void CheckNotSource(const GgufFile& file, const std::string& path) {
  struct stat out, in;
  if (::stat(path.c_str(), &out) != 0) return;
  for (size_t i = 0; i < file.n_parts(); ++i) {
    if (::stat(file.part(i).path().c_str(), &in) == 0 && in.st_dev == out.st_dev &&
        in.st_ino == out.st_ino) {
      Fail(ErrorCode::kInvalidArgument, "%s: is the model to quantize: name another file to write",
           Printable(path, 400).c_str());
    }
  }
}

// "dir/model.gguf" or "dir/model" -> "dir/model-00002-of-00003.gguf".
std::string PartPath(const std::string& path, size_t part, size_t n) {
  const auto given = SplitName::Parse(path);  // the name of a part stands for all
  const std::string base = given                     ? given->prefix
                           : path.ends_with(".gguf") ? path.substr(0, path.size() - 5)
                                                     : path;
  return SplitName{base, 1, static_cast<uint32_t>(n)}.Path(static_cast<uint32_t>(part) + 1);
}

}  // namespace

std::vector<float> ImportanceOf(const QuantizeOptions& options, const GgufTensor& tensor,
                                uint64_t matrix) {
  const ImatrixEntry* entry = EntryOf(options, tensor);
  if (entry == nullptr) return {};
  const uint64_t n = tensor.dim(0);
  const uint64_t n_matrices = tensor.n_weights() / (n * tensor.dim(1));
  if (entry->n_columns == n && (entry->n_matrices == n_matrices || entry->n_matrices == 1)) {
    return entry->Means(entry->n_matrices == 1 ? 0 : matrix);
  }
  // The older form does not tell matrices apart.
  if (entry->n_matrices == 1 && entry->n_columns == n * n_matrices) {
    const std::vector<float> all = entry->Means(0);
    return {all.begin() + static_cast<ptrdiff_t>(matrix * n),
            all.begin() + static_cast<ptrdiff_t>((matrix + 1) * n)};
  }
  // Embeddings may have been recorded in another layout; everything else belongs to another model.
  if (IsEmbedding(tensor)) return {};
  Fail(ErrorCode::kInvalidArgument,
       "%s: the importance matrix has %" PRIu64 " x %" PRIu64 " values for '%s', which has %" PRIu64
       " columns: it was made for another model",
       Printable(options.imatrix->path, 400).c_str(), entry->n_matrices, entry->n_columns,
       Printable(tensor.name, 80).c_str(), n);
}

RowError ErrorOf(std::span<const float> x, std::span<const float> y,
                 std::span<const float> importance) {
  RowError sum;
  for (size_t i = 0; i < x.size(); ++i) {
    const double w = importance.empty() ? 1.0 : static_cast<double>(importance[i]);
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum.error += w * d * d;
    sum.square += w * static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return sum;
}

QuantizePlan PlanQuantize(const GgufFile& file, const QuantizeOptions& options) {
  QuantizePlan plan;
  plan.file_type = options.mix->file_type;
  std::vector<std::pair<std::regex, const TensorTypeInfo*>> rules;
  for (const auto& [expression, type] : options.tensor_types)
    rules.emplace_back(Compile(expression), type);
  std::vector<bool> used(rules.size(), false);
  MixRules mix(*options.mix, file, options.imatrix != nullptr);
  uint64_t without_importance = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    const TensorTypeInfo* type = tensor.type;
    if (IsQuantizable(tensor) && !(options.leave_output && tensor.name == "output.weight")) {
      const uint32_t by_mix = mix.Next(tensor);
      type = FindTensorType(options.pure ? options.mix->default_type : by_mix);
      if (options.output_type != nullptr && IsOutput(file, tensor)) type = options.output_type;
      if (options.embedding_type != nullptr && IsEmbedding(tensor)) type = options.embedding_type;
      for (size_t i = 0; i < rules.size(); ++i) {
        if (!std::regex_search(tensor.name, rules[i].first)) continue;
        type = rules[i].second;
        used[i] = true;
        break;
      }
      const TensorTypeInfo* fits = FallbackForRows(type, tensor.dim(0));
      if (fits != type) {
        plan.warnings.push_back(Format("%s: rows of %" PRIu64 " weights do not fit %s, takes %s",
                                       Printable(tensor.name, 80).c_str(), tensor.dim(0),
                                       type->name, fits->name));
      }
      type = fits;
    }
    if (type != tensor.type) {
      if (tensor.type->block_weights != 1 && !options.allow_requantize) {
        Fail(ErrorCode::kUnsupported,
             "%s: tensor '%s' is quantized already (%s); quantizing again loses quality: start "
             "from F16, BF16 or F32, or insist with "
             "--allow-requantize",
             Printable(file.path(), 400).c_str(), Printable(tensor.name, 80).c_str(),
             tensor.type->name);
      }
      const bool has_importance = EntryOf(options, tensor) != nullptr;
      if (has_importance) ImportanceOf(options, tensor, 0);  // refuses another model's
      if (!has_importance && WantsImportance(type->id) && !IsEmbedding(tensor) &&
          !IsOutput(file, tensor)) {
        if (!options.ignore_imatrix_rules) {
          Fail(ErrorCode::kInvalidArgument,
               "tensor '%s': %s is too coarse to do without an importance matrix: make one with "
               "lutra imatrix and give it with "
               "--imatrix, or insist with --ignore-imatrix-rules",
               Printable(tensor.name, 80).c_str(), type->name);
        }
        ++without_importance;
      }
      plan.n_converted += tensor.n_weights();
    }
    const uint64_t bytes = RowBytes(*type, tensor.dim(0)) * (tensor.n_weights() / tensor.dim(0));
    plan.tensors.push_back({&tensor, type, bytes});
    plan.n_weights += tensor.n_weights();
    plan.bytes += bytes;
    plan.source_bytes += tensor.bytes;
  }
  for (size_t i = 0; i < rules.size(); ++i) {
    if (!used[i])
      plan.warnings.push_back(Format("--tensor-type '%s' matches no tensor that is quantized",
                                     Printable(options.tensor_types[i].first, 80).c_str()));
  }
  if (without_importance != 0) {
    plan.warnings.push_back(
        Format("%" PRIu64 " tensors take a type that wants an importance matrix and have none",
               without_importance));
  }
  return plan;
}

void WriteQuantized(const GgufFile& file, const QuantizeOptions& options, const QuantizePlan& plan,
                    ThreadPool* pool, const std::string& path,
                    const std::function<void(const QuantizeProgress&)>& progress,
                    const QuantizeQuality* quality) {
  QuantizeProgress now;
  now.n_tensors = plan.tensors.size();
  now.n_weights = plan.n_weights;
  const size_t n_files = options.keep_split ? file.n_parts() : 1;
  LUTRA_CHECK(quality == nullptr || n_files == 1);
  std::vector<GgufWriter> writers(n_files);
  writers[0] = Metadata(file, options, plan);
  ModelQuality measured;
  if (quality != nullptr) {
    measured = quality->known;
    measured.tensor_bytes = plan.bytes;
    measured.importance = options.imatrix != nullptr;
    measured.tensor_errors.assign(plan.tensors.size(), 0.0f);
    measured.Write(&writers[0]);  // takes the place
  }
  for (size_t part = 0; n_files > 1 && part < n_files; ++part) {
    writers[part].Set("split.no", static_cast<uint16_t>(part));
    writers[part].Set("split.count", static_cast<uint16_t>(n_files));
    writers[part].Set("split.tensors.count", static_cast<int32_t>(plan.tensors.size()));
    if (part > 0) {
      if (const auto alignment = file.GetU32("general.alignment"))
        writers[part].Set("general.alignment", *alignment);
    }
  }
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorPlan& tensor = plan.tensors[i];
    writers[n_files > 1 ? tensor.tensor->part : 0].AddTensor(
        tensor.tensor->name, tensor.tensor->dims, tensor.type->id,
        [&, pool, i](const GgufByteSink& sink) {
          const TensorPlan& t = plan.tensors[i];
          now.tensor = &t;
          now.i_tensor = i;
          const auto report = [&](uint64_t weights) {
            now.weights_done += weights;
            if (progress) progress(now);
          };
          const GgufByteSink counted = [&](std::span<const uint8_t> bytes) {
            sink(bytes);
            now.bytes_written += bytes.size();
          };
          report(0);
          if (t.converts()) {
            RowError error;
            ConvertTensor(file, options, t, pool, counted, report,
                          quality != nullptr ? &error : nullptr);
            if (quality != nullptr)
              measured.tensor_errors[i] = static_cast<float>(std::sqrt(error.relative()));
          } else {
            CopyTensor(file, *t.tensor, counted);
            report(t.tensor->n_weights());
          }
        });
  }
  uint64_t bytes = 0;
  for (size_t i = 0; i < n_files; ++i) {
    bytes += writers[i].FileBytes();
    CheckNotSource(file, n_files > 1 ? PartPath(path, i, n_files) : path);
  }
  CheckDisk(path, bytes);
  std::vector<std::unique_ptr<TemporaryFile>> files;
  for (size_t i = 0; i < n_files; ++i)
    files.push_back(writers[i].WriteTemporary(n_files > 1 ? PartPath(path, i, n_files) : path));
  file.CheckNotTruncated();
  if (quality != nullptr) {
    quality->measure(files[0]->temporary_name(), &measured);
    measured.Write(&writers[0]);
    writers[0].RewriteMetadata(files[0].get());
  }
  for (const std::unique_ptr<TemporaryFile>& complete : files) complete->Commit();
}

}  // namespace lutra
