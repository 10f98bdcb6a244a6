// /v1/embeddings.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "server/api_error.h"
#include "server/limits.h"
#include "server/prompt.h"
#include "server/routes.h"
#include "server/run.h"

namespace lutra::server {
namespace {

std::string Base64(const uint8_t* data, size_t size) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < size; i += 3) {
    const uint32_t n = static_cast<uint32_t>(data[i]) << 16 |
                       (i + 1 < size ? static_cast<uint32_t>(data[i + 1]) << 8 : 0) |
                       (i + 2 < size ? data[i + 2] : 0);
    out += kDigits[n >> 18];
    out += kDigits[n >> 12 & 63];
    out += i + 1 < size ? kDigits[n >> 6 & 63] : '=';
    out += i + 2 < size ? kDigits[n & 63] : '=';
  }
  return out;
}

// The first n numbers at unit length.
std::vector<float> Shorten(std::vector<float> v, size_t n) {
  v.resize(n);
  double square = 0;
  for (const float x : v) square += static_cast<double>(x) * x;
  const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
  for (float& x : v) x = static_cast<float>(x * scale);
  return v;
}

}  // namespace

void Embeddings(Call& call) {
  const Params p = call.app.Read(call, kEmbeddings);
  ServedModel& model = call.app.Model(p.model);
  const auto prompts = MakePrompts(p.input, "input", kMaxInputs, model);
  const size_t n_embd = model.engine().hparams().n_embd;
  if (p.dimensions > static_cast<int64_t>(n_embd)) {
    throw ApiError(400,
                   Format("field 'dimensions' is %lld; it takes an integer from 1 to %zu",
                          static_cast<long long>(p.dimensions), n_embd),
                   "dimensions", "invalid_value");
  }
  size_t total = 0;
  for (const auto& prompt : prompts) {
    CheckContext(prompt.size(), 0, model, "input");
    total += prompt.size();
  }
  Json data = Json::array();
  // In parts that the queue takes: a long list is no reason to refuse it.
  const SchedulerOptions& o = model.scheduler().options();
  const size_t part =
      std::max<size_t>(1, std::min(prompts.size(), o.max_sequences + o.max_queued / 2));
  for (size_t begin = 0; begin < prompts.size(); begin += part) {
    std::vector<SequenceRequest> requests;
    for (size_t i = begin; i < std::min(prompts.size(), begin + part); ++i) {
      SequenceRequest r;
      r.prompt = prompts[i];
      r.embed = true;
      r.embed_last = model.pools_last();
      r.client = call.client(p.user);
      requests.push_back(std::move(r));
    }
    std::vector<std::vector<float>> found(requests.size());
    const auto run = Run::Start(model.scheduler(), std::move(requests));
    call.exchange.OnClientGone([weak = std::weak_ptr<Run>(run)] {
      if (const auto r = weak.lock()) r->Cancel();
    });
    size_t i;
    SequenceEvent event;
    while (!run->finished()) {
      if (call.exchange.client_gone()) throw Cancelled(call.exchange);
      if (!run->Next(&i, &event, std::chrono::milliseconds(1000))) continue;
      if (event.error != nullptr) std::rethrow_exception(event.error);
      if (event.finish == FinishReason::kCancelled) throw Cancelled(call.exchange);
      found[i] = std::move(event.embedding);
    }
    for (std::vector<float>& v : found) {
      if (p.dimensions > 0) v = Shorten(std::move(v), static_cast<size_t>(p.dimensions));
      Json embedding;
      if (p.encoding_format == "base64") {
        // Little-endian floats; the machines we run on store them so.
        static_assert(std::endian::native == std::endian::little);
        embedding = Base64(reinterpret_cast<const uint8_t*>(v.data()), v.size() * sizeof(float));
      } else {
        embedding = v;
      }
      data.push_back(
          {{"object", "embedding"}, {"index", data.size()}, {"embedding", std::move(embedding)}});
    }
  }
  call.numbers.usage.prompt_tokens = total;
  Reply(call, 200,
        {{"object", "list"},
         {"data", std::move(data)},
         {"model", model.name()},
         {"usage", {{"prompt_tokens", total}, {"total_tokens", total}}}});
}

}  // namespace lutra::server
