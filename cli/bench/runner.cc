#include "cli/bench/runner.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <map>
#include <thread>

#include "kernels/base/cpu.h"
#include "kernels/base/error.h"
#include "kernels/dispatch.h"
#include "models/synthetic.h"

namespace lutra::bench {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t NsSince(Clock::time_point start) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

std::string Now() {
  const std::time_t t = std::time(nullptr);
  char text[32];
  std::tm tm;
  std::strftime(text, sizeof text, "%FT%TZ", gmtime_r(&t, &tm));
  return text;
}

// Prompt tokens a forward pass takes.
int PassTokens(const TestSpec& spec) { return std::min(spec.n_batch, spec.n_ubatch); }

size_t PagesFor(int n_ctx) { return (static_cast<size_t>(n_ctx) + kKvPage - 1) / kKvPage; }

}  // namespace

BenchModel::BenchModel(const ModelSource& source, int load_threads, const LoadProgress& progress)
    : source_(source) {
  pool_ = std::make_unique<ThreadPool>(load_threads);
  GgufFile file = source.synthetic.empty() ? GgufFile::Open(source.path)
                                           : BuildSynthetic(ParseSynthetic(source.synthetic),
                                                            *pool_, AdviseMemory().available_bytes);
  EngineOptions options;
  options.model_path = source.Name();
  options.n_ctx = options.batch_tokens = 1;  // what tests need besides is asked for when they run
  RequireMemory(PlanMemory(file, ReadHparams(file), options), options.model_path,
                file.memory_bytes());
  const auto start = Clock::now();
  model_ = Model::Load(std::move(file), *pool_, progress);
  load_ms_ = static_cast<double>(NsSince(start)) / 1e6;
}

std::string BenchModel::Description() const {
  std::map<std::string, uint64_t> bytes;
  for (const GgufTensor& t : model_->file().tensors()) bytes[t.type->name] += t.bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const double weights = static_cast<double>(TensorWeights());
  const std::string size =
      weights < 1e9 ? Format("%.0fM", weights / 1e6) : Format("%.1fB", weights / 1e9);
  return Format("%s %s %s", model_->hparams().arch->name, size.c_str(), most->first.c_str());
}

uint64_t BenchModel::TensorBytes() const {
  uint64_t n = 0;
  for (const GgufTensor& t : model_->file().tensors()) n += t.bytes;
  return n;
}

uint64_t BenchModel::TensorWeights() const {
  uint64_t n = 0;
  for (const GgufTensor& t : model_->file().tensors()) n += t.n_weights();
  return n;
}

void BenchModel::Prepare(const TestSpec& spec, size_t n_pages, int logits) {
  if (spec.type_k != spec.type_v) {
    Fail(ErrorCode::kInvalidArgument, "-ctk %s -ctv %s: keys and values have one type here",
         spec.type_k.c_str(), spec.type_v.c_str());
  }
  const KvType kv_type = ParseKvType(spec.type_k);
  const int tokens =
      std::max({1, logits, std::min(PassTokens(spec), std::max(spec.n_prompt, spec.n_depth))});
  const bool new_pool = pool_->n_threads() != spec.n_threads;
  if (new_pool || decoder_ == nullptr || decoder_tokens_ < tokens || decoder_logits_ < logits ||
      kv_type_ != kv_type) {
    decoder_.reset();
    if (new_pool) pool_ = std::make_unique<ThreadPool>(spec.n_threads);
    decoder_ = std::make_unique<Decoder>(*model_, *pool_, kv_type, static_cast<size_t>(tokens),
                                         static_cast<size_t>(logits));
    decoder_tokens_ = tokens;
    decoder_logits_ = logits;
    if (kv_type_ != kv_type) cache_ = {};
    kv_type_ = kv_type;
    batch_.reserve(static_cast<size_t>(tokens));
  }
  const size_t page_bytes = decoder_->kv_layout().page_bytes();
  if (cache_.size() >= n_pages * page_bytes) return;
  filled_ = 0;
  cache_ = {};
  const MemoryAdvice memory = AdviseMemory();
  if (memory.available_bytes != 0 && n_pages * page_bytes > memory.available_bytes) {
    Fail(ErrorCode::kResourceExhausted,
         "%s: %zu tokens of context need %.2f GB for keys and values, but only %.2f GB are "
         "available",
         source_.Name().c_str(), n_pages * kKvPage, static_cast<double>(n_pages * page_bytes) / 1e9,
         static_cast<double>(memory.available_bytes) / 1e9);
  }
  cache_ = AlignedArray<uint8_t>(n_pages * page_bytes);
  std::memset(cache_.data(), 0, cache_.size());  // so that no test pays for its first touch
  pages_.clear();
  for (size_t at = 0; at < cache_.size(); at += page_bytes) pages_.push_back(cache_.data() + at);
}

void BenchModel::Reserve(const TestSpec& spec, int n_ctx) { Prepare(spec, PagesFor(n_ctx), 1); }

uint8_t* const* BenchModel::Pages(int stream, int n_ctx) const {
  return pages_.data() + static_cast<size_t>(stream) * PagesFor(n_ctx);
}

void BenchModel::CheckCancelled() const {
  if (cancel_ != nullptr && cancel_->load()) Fail(ErrorCode::kCancelled, "stopped");
}

void BenchModel::Prompt(const TestSpec& spec, uint8_t* const* pages, int pos, int n) {
  const int end = pos + n;
  while (pos < end) {
    const int batch_end = std::min(end, pos + spec.n_batch);
    while (pos < batch_end) {
      CheckCancelled();
      const int part = std::min(batch_end - pos, PassTokens(spec));
      batch_.clear();
      for (int i = 0; i < part; ++i) {
        batch_.push_back({RandomToken(), pos + i, pages, pos + i + 1 == batch_end});
      }
      decoder_->Forward(batch_);
      pos += part;
    }
  }
}

void BenchModel::Generate(int pos, int n, std::vector<uint64_t>* token_ns) {
  for (int i = 0; i < n; ++i) {
    CheckCancelled();
    const BatchToken token = {RandomToken(), pos + i, pages_.data(), true};
    const auto start = Clock::now();
    decoder_->Forward({&token, 1});
    if (token_ns != nullptr) token_ns->push_back(NsSince(start));
  }
}

BenchRecord BenchModel::Run(const TestSpec& spec, const RunOptions& options) {
  cancel_ = options.cancel;
  const auto say = [&](const std::string& what) {
    if (options.progress) options.progress(TestName(spec) + ": " + what);
  };
  const int end = spec.n_depth + spec.n_prompt + spec.n_gen;
  Prepare(spec, PagesFor(end), 1);
  BenchRecord record;
  record.model_filename = source_.Name();
  record.model_type = Description();
  record.model_size = TensorBytes();
  record.model_n_params = TensorWeights();
  record.spec = spec;
  record.cpu_info = CpuName();
  record.test_time = Now();
  record.simd_target = SimdName();
  record.load_ms = load_ms_;

  if (options.delay_s > 0) std::this_thread::sleep_for(std::chrono::seconds(options.delay_s));
  if (spec.n_depth > filled_) {
    say(Format("filling the context to %d", spec.n_depth));
    Prompt(spec, pages_.data(), filled_, spec.n_depth - filled_);
  }
  // Which tokens the cache is of makes no difference to the speed: a later test at a depth finds what this one leaves.
  filled_ = std::max(filled_, end);
  if (options.warmup) {
    say("warm-up");
    if (spec.n_prompt > 0) Prompt(spec, pages_.data(), spec.n_depth, spec.n_prompt);
    if (spec.n_gen > 0) Generate(spec.n_depth + spec.n_prompt, 1, nullptr);
  }
  record.work = WorkOf(spec);
  if (options.roofline) record.roofline = options.roofline(spec.n_threads);
  record.token_ns.reserve(static_cast<size_t>(options.repetitions) *
                          static_cast<size_t>(spec.n_gen));
  ResetRssPeak();
  const MachineState before = ReadMachineState();
  energy_.Start();
  for (int i = 0; i < options.repetitions; ++i) {
    say(Format("run %d of %d", i + 1, options.repetitions));
    const auto start = Clock::now();
    if (spec.n_prompt > 0) {
      Prompt(spec, pages_.data(), spec.n_depth, spec.n_prompt);
      record.prompt_ns.push_back(NsSince(start));
    }
    if (spec.n_gen > 0) Generate(spec.n_depth + spec.n_prompt, spec.n_gen, &record.token_ns);
    record.samples_ns.push_back(NsSince(start));
  }
  record.joules = energy_.Stop();
  record.noise = NoiseText(before, ReadMachineState(), spec.n_threads);
  record.rss_peak_mib = RssPeakMib();
  return record;
}

BenchModel::Batched BenchModel::RunBatched(const TestSpec& spec, int n_streams,
                                           const RunOptions& options) {
  cancel_ = options.cancel;
  const int n_ctx = spec.n_prompt + spec.n_gen;
  Prepare(spec, PagesFor(n_ctx) * static_cast<size_t>(n_streams), n_streams);
  filled_ = 0;
  Batched result{};
  auto start = Clock::now();
  for (int s = 0; s < n_streams; ++s) Prompt(spec, Pages(s, n_ctx), 0, spec.n_prompt);
  result.prompt_seconds = static_cast<double>(NsSince(start)) / 1e9;
  const auto step = [&](int pos) {
    CheckCancelled();
    batch_.clear();
    for (int s = 0; s < n_streams; ++s)
      batch_.push_back({RandomToken(), pos, Pages(s, n_ctx), true});
    decoder_->Forward(batch_);
  };
  if (options.warmup) step(spec.n_prompt);
  start = Clock::now();
  for (int i = 0; i < spec.n_gen; ++i) step(spec.n_prompt + i);
  result.decode_seconds = static_cast<double>(NsSince(start)) / 1e9;
  return result;
}

Work BenchModel::WorkOf(const TestSpec& spec) const {
  Work work;
  const KvLayout& kv = decoder_->kv_layout();
  const int end = spec.n_depth + spec.n_prompt;
  for (int pos = spec.n_depth; pos < end;) {  // the passes of Prompt
    const int batch_end = std::min(end, pos + spec.n_batch);
    while (pos < batch_end) {
      const int part = std::min(batch_end - pos, PassTokens(spec));
      work += WorkOfPass(*model_, kv, static_cast<size_t>(pos), static_cast<size_t>(part),
                         pos + part == batch_end ? 1 : 0);
      pos += part;
    }
  }
  for (int i = 0; i < spec.n_gen; ++i)
    work += WorkOfPass(*model_, kv, static_cast<size_t>(end + i), 1, 1);
  return work;
}

}  // namespace lutra::bench
