#include "engine/engine.h"

#include <algorithm>
#include <chrono>

#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace lutra {
namespace {

std::string Gib(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1000 ? Format("%.1f MiB", mib) : Format("%.2f GiB", mib / 1024);
}

uint32_t BatchLogits(const Hparams& h, const EngineOptions& options) {
  if (options.batch_logits_bytes == 0) return options.batch_logits;
  const uint64_t most =
      std::max<uint64_t>(1, options.batch_logits_bytes / (uint64_t{h.n_vocab} * sizeof(float)));
  return static_cast<uint32_t>(std::min<uint64_t>(options.batch_logits, most));
}

}  // namespace

MemoryPlan PlanMemory(const GgufFile& file, const Hparams& h, const EngineOptions& options) {
  MemoryPlan plan{};
  plan.n_ctx = options.n_ctx != 0 ? options.n_ctx : std::min(h.n_ctx_train, kDefaultContext);
  plan.kv_type = options.kv_type;
  plan.weights = Model::PlannedBytes(file);
  plan.kv_tokens = std::max<uint64_t>(options.kv_tokens, plan.n_ctx);
  const uint64_t pages = (plan.kv_tokens + kKvPage - 1) / kKvPage;
  plan.kv = pages * KvLayout(h, options.kv_type).page_bytes();
  plan.scratch = Decoder::PlannedBytes(h, options.batch_tokens, BatchLogits(h, options));
  return plan;
}

void RequireMemory(const MemoryPlan& plan, const std::string& path, uint64_t reusable_bytes) {
  const MemoryAdvice memory = AdviseMemory();
  if (memory.available_bytes != 0 && plan.total() > memory.available_bytes + reusable_bytes) {
    Fail(ErrorCode::kResourceExhausted,
         "%s: needs %s, but only %s are available: choose a smaller model or quantization, or a "
         "shorter context (-c)",
         path.c_str(), plan.Text().c_str(), Gib(memory.available_bytes + reusable_bytes).c_str());
  }
}

namespace {

// Our names first. llama.cpp's other 8-bit and smaller types have no counterpart of their own: the integer cache serves them.
constexpr struct {
  const char* name;
  KvType type;
} kKvTypes[] = {{"f32", KvType::kF32},  {"f16", KvType::kF16},  {"q8", KvType::kQ8},
                {"fp32", KvType::kF32}, {"fp16", KvType::kF16}, {"bf16", KvType::kF16},
                {"q8_0", KvType::kQ8},  {"q8_KV", KvType::kQ8}};

}  // namespace

KvType ParseKvType(const std::string& name) {
  for (const auto& row : kKvTypes) {
    if (name == row.name) return row.type;
  }
  Fail(ErrorCode::kInvalidArgument, "kv-type: '%s' is not known; it takes q8, f16 or f32",
       Printable(name, 40).c_str());
}

const char* KvTypeName(KvType type) {
  for (const auto& row : kKvTypes) {
    if (type == row.type) return row.name;
  }
  return "?";
}

std::string MemoryPlan::Text() const {
  return Format("weights %s + context of %llu tokens (%s) %s + scratch %s = %s",
                Gib(weights).c_str(), static_cast<unsigned long long>(kv_tokens),
                KvTypeName(kv_type), Gib(kv).c_str(), Gib(scratch).c_str(), Gib(total()).c_str());
}

Engine::Engine(const EngineOptions& options)
    : Engine(options, GgufFile::Open(options.model_path)) {}

Engine::Engine(const EngineOptions& options, GgufFile file) {
  const auto start = std::chrono::steady_clock::now();
  if (options.n_ctx > kMaxContext) {
    Fail(ErrorCode::kInvalidArgument, "context: %u is out of range; it takes 1 to %u",
         options.n_ctx, kMaxContext);
  }
  if (options.batch_tokens < 1 || options.batch_tokens > kMaxBatchTokens) {
    Fail(ErrorCode::kInvalidArgument, "batch: %u is out of range; it takes 1 to %u",
         options.batch_tokens, kMaxBatchTokens);
  }
  const ThreadAdvice advice = AdviseThreads();
  const int threads = options.threads != 0 ? options.threads : advice.threads;
  thread_reason_ = options.threads != 0
                       ? Format("%d %s: as asked for", threads, threads == 1 ? "thread" : "threads")
                       : advice.reason;
  pool_ = std::make_unique<ThreadPool>(threads);

  const Hparams h = ReadHparams(file);
  if (options.need_tokenizer) tokenizer_ = Tokenizer::FromGguf(file);
  plan_ = PlanMemory(file, h, options);
  RequireMemory(plan_, file.path(), file.memory_bytes());
  if (options.n_ctx > h.n_ctx_train) {
    Log(LogLevel::kWarning,
        "context %u is longer than the %u tokens the model was trained with; expect worse text",
        options.n_ctx, h.n_ctx_train);
  }
  model_ = Model::Load(std::move(file), *pool_, options.progress);
  decoder_ = std::make_unique<Decoder>(*model_, *pool_, options.kv_type, options.batch_tokens,
                                       BatchLogits(h, options));
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace lutra
