// The facade: a loaded model with its tokenizer, threads and forward-pass scratch, ready for sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/limits.h"
#include "kernels/base/parallel.h"
#include "models/decoder.h"
#include "models/model.h"
#include "models/tokenizer/tokenizer.h"

namespace lutra {

struct EngineOptions {
  std::string model_path;
  int threads = 0;         // 0: what the machine offers (AdviseThreads)
  uint32_t n_ctx = 0;      // context to plan for; 0: the model's own, at most kDefaultContext
  uint64_t kv_tokens = 0;  // positions the KV caches hold together; 0: one context
  KvType kv_type = KvType::kF16;    // the commands that talk take q8 unless told otherwise
  uint32_t batch_tokens = 512;      // prompt tokens a forward pass takes
  uint32_t batch_logits = 1;        // of which want logits
  uint64_t batch_logits_bytes = 0;  // fewer logits than that if they took more bytes; 0: no limit
  bool need_tokenizer = true;
  LoadProgress progress;
};

inline constexpr uint32_t kDefaultContext = 8192;

// "q8", "f16", "f32"; also llama.cpp's names: "q8_0" (and ik_llama.cpp's "q8_KV") is q8, "bf16" is f16, "fp16" and "fp32". Throws
// Error(kInvalidArgument) listing them.
KvType ParseKvType(const std::string& name);
const char* KvTypeName(KvType type);

// What a model will take, computed before anything is loaded.
struct MemoryPlan {
  uint64_t weights, kv, scratch;
  uint64_t total() const { return weights + kv + scratch; }
  std::string Text()
      const;  // "weights 0.77 GiB + context 4096 (f16) 0.12 GiB + scratch 0.05 GiB = ..."
  uint32_t n_ctx;
  uint64_t kv_tokens;
  KvType kv_type;
};

// From the tensor list and the options alone.
MemoryPlan PlanMemory(const GgufFile& file, const Hparams& h, const EngineOptions& options);

// Throws Error(kResourceExhausted) with the plan and the fix if it exceeds the memory available and `reusable_bytes`, which
// loading gives back (GgufFile::memory_bytes).
void RequireMemory(const MemoryPlan& plan, const std::string& path, uint64_t reusable_bytes = 0);

// One forward pass runs at a time: sessions of an engine share its scratch and belong to one thread.
class Engine {
 public:
  // Throws Error: what reading the file throws; kResourceExhausted with the plan and the fix if memory does not suffice;
  // kInvalidArgument for options out of range.
  explicit Engine(const EngineOptions& options);
  // Of a file that is open: model_path is not looked at.
  Engine(const EngineOptions& options, GgufFile file);

  const Model& model() const { return *model_; }
  const Hparams& hparams() const { return model_->hparams(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  Decoder& decoder() { return *decoder_; }
  ThreadPool& pool() { return *pool_; }
  uint64_t kv_tokens() const { return plan_.kv_tokens; }
  uint32_t n_ctx() const { return plan_.n_ctx; }
  const MemoryPlan& plan() const { return plan_; }
  const std::string& thread_reason() const {
    return thread_reason_;
  }  // "2 threads: 2 physical cores"
  double load_seconds() const { return load_seconds_; }

 private:
  MemoryPlan plan_{};
  std::string thread_reason_;
  double load_seconds_ = 0;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace lutra
