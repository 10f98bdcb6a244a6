#include "models/decoder.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/ops.h"

namespace lutra {
namespace {

// The divisor of the chosen experts' weights is at least this (the smallest normal f16).
constexpr float kLeastExpertSum = 0x1p-14f;

struct Widths {
  size_t q = 0, kv_k = 0, kv_v = 0, att = 0, ff = 0, all = 0;
};

Widths WidthsOf(const Hparams& h) {
  Widths w;
  for (const LayerHparams& l : h.layers) {
    w.q = std::max<size_t>(w.q, size_t{l.n_head} * h.head_dim_k);
    w.kv_k = std::max<size_t>(w.kv_k, size_t{l.n_head_kv} * h.head_dim_k);
    w.kv_v = std::max<size_t>(w.kv_v, size_t{l.n_head_kv} * h.head_dim_v);
    w.att = std::max<size_t>(w.att, size_t{l.n_head} * h.head_dim_v);
    if (h.n_expert == 0) w.ff = std::max<size_t>(w.ff, l.n_ff);
  }
  w.ff = std::max<size_t>({w.ff, h.n_ff_exp, h.n_ff_shexp});
  w.all = std::max({size_t{h.n_embd}, w.att, w.ff});
  return w;
}

// Batches of so few tokens may have their attention cut into segments, so that all threads find work.
constexpr size_t kSplitTokens = 16;

size_t SplitStateFloats(const Hparams& h, size_t max_tokens) {
  size_t n_head = 0;
  for (const LayerHparams& l : h.layers) n_head = std::max<size_t>(n_head, l.n_head);
  const KvHeadLayout layout(KvType::kF32, h.head_dim_k, h.head_dim_v);
  return std::min(max_tokens, kSplitTokens) * n_head * kMaxSegments * StateFloats(layout);
}

// y [n] += bias[begin, begin + n), if there is one.
void AddBias(const std::vector<float>& bias, size_t begin, size_t n, float* y) {
  if (!bias.empty()) Add(bias.data() + begin, n, y);
}
void AddBias(const std::vector<float>& bias, float* y) { AddBias(bias, 0, bias.size(), y); }

}  // namespace

KvLayout::KvLayout(const Hparams& h, KvType type) : head_(type, h.head_dim_k, h.head_dim_v) {
  for (const LayerHparams& l : h.layers) {
    layer_offset_.push_back(page_bytes_);
    page_bytes_ += l.n_head_kv * head_.bytes;
  }
}

Decoder::Decoder(const Model& model, ThreadPool& pool, KvType kv_type, size_t max_tokens,
                 size_t max_logits)
    : model_(model),
      h_(model.hparams()),
      pool_(pool),
      kv_(h_, kv_type),
      max_tokens_(max_tokens),
      max_logits_(max_logits),
      input_(max_tokens, WidthsOf(h_).all) {
  LUTRA_CHECK(max_tokens >= 1);
  const Widths w = WidthsOf(h_);
  max_q_ = w.q;
  max_kv_k_ = w.kv_k;
  max_kv_v_ = w.kv_v;
  max_att_ = w.att;
  max_ff_ = w.ff;
  x_ = AlignedArray<float>(max_tokens * h_.n_embd);
  h_norm_ = AlignedArray<float>(max_tokens * h_.n_embd);
  y_ = AlignedArray<float>(max_tokens * h_.n_embd);
  q_ = AlignedArray<float>(max_tokens * w.q);
  k_ = AlignedArray<float>(max_tokens * w.kv_k);
  v_ = AlignedArray<float>(max_tokens * w.kv_v);
  att_ = AlignedArray<float>(max_tokens * w.att);
  gate_ = AlignedArray<float>(max_tokens * w.ff);
  up_ = AlignedArray<float>(max_tokens * w.ff);
  cos_ = AlignedArray<float>(max_tokens * model.rope().n_pairs());
  sin_ = AlignedArray<float>(max_tokens * model.rope().n_pairs());
  logits_ = AlignedArray<float>(max_logits * h_.n_vocab);
  states_ = AlignedArray<float>(SplitStateFloats(h_, max_tokens));
  runs_.reserve(max_tokens);
  if (h_.n_expert > 0) {
    router_ = AlignedArray<float>(max_tokens * h_.n_expert);
    expert_x_ = AlignedArray<float>(max_tokens * h_.n_embd);
    expert_y_ = AlignedArray<float>(max_tokens * h_.n_embd);
    chosen_.resize(max_tokens * h_.n_expert_used);
    chosen_weight_.resize(max_tokens * h_.n_expert_used);
    expert_tokens_.resize(max_tokens);
    expert_rank_.resize(max_tokens);
  }
}

uint64_t Decoder::PlannedBytes(const Hparams& h, size_t max_tokens, size_t max_logits) {
  const Widths w = WidthsOf(h);
  const uint64_t floats = 3ull * h.n_embd + w.q + w.kv_k + w.kv_v + w.att + 2 * w.ff +
                          h.rope.n_rot + (h.n_expert > 0 ? h.n_expert + 2ull * h.n_embd : 0);
  return max_tokens * floats * 4 + MatrixInput::PlannedBytes(max_tokens, w.all) +
         max_logits * uint64_t{h.n_vocab} * 4 + SplitStateFloats(h, max_tokens) * 4;
}

std::span<const float> Decoder::logits(size_t i) const {
  LUTRA_CHECK(i < max_logits_);
  return {logits_.data() + i * h_.n_vocab, h_.n_vocab};
}

std::span<const float> Decoder::hidden(size_t i) const {
  LUTRA_CHECK(i < n_hidden_);
  return {h_norm_.data() + (n_logits_ + i) * h_.n_embd, h_.n_embd};
}

void Decoder::ForTokens(size_t n, FunctionRef<void(size_t)> body) {
  if (n == 1) {
    body(0);
  } else {
    pool_.For(n, body);
  }
}

void Decoder::Forward(std::span<const BatchToken> batch) {
  size_t n_logits = 0;
  for (const BatchToken& t : batch) {
    if (t.token < 0 || static_cast<uint32_t>(t.token) >= h_.n_vocab) {
      Fail(ErrorCode::kInvalidArgument, "token %d is outside the vocabulary of %u", t.token,
           h_.n_vocab);
    }
    if (t.want_logits && t.want_hidden) {
      Fail(ErrorCode::kInvalidArgument,
           "token %d wants logits and hidden state, which share their memory", t.token);
    }
    n_logits += t.want_logits;
  }
  if (batch.size() > max_tokens_ || n_logits > max_logits_) {
    Fail(ErrorCode::kInvalidArgument,
         "batch of %zu tokens with %zu logits; at most %zu and %zu were planned", batch.size(),
         n_logits, max_tokens_, max_logits_);
  }
  if (!batch.empty()) pool_.Region([&] { RunLayers(batch); });
}

void Decoder::Multiply(std::span<const Product> products) {
  if (observer_ != nullptr) observer_->Observe(products, input_);
  MultiplyAll(products, input_, pool_);
}

void Decoder::MultiplyTogether(std::span<const Product> products,
                               FunctionRef<void(size_t, size_t)> finish) {
  if (observer_ != nullptr) observer_->Observe(products, input_);
  lutra::MultiplyTogether(products, input_, pool_, finish);
}

void Decoder::MultiplyOntoX(const Matrix& w, const std::vector<float>& bias, size_t n_tokens) {
  const Product product{&w, y_.data(), h_.n_embd};
  MultiplyTogether({&product, 1}, [&](size_t begin, size_t end) {
    for (size_t t = 0; t < n_tokens; ++t) {
      float* y = y_.data() + t * h_.n_embd + begin;
      AddBias(bias, begin, end - begin, y);
      Add(y, end - begin, x_.data() + t * h_.n_embd + begin);
    }
  });
}

void Decoder::NormInput(const std::vector<float>& weight, size_t n_tokens) {
  ForTokens(n_tokens, [&](size_t t) {
    RmsNorm(x_.data() + t * h_.n_embd, weight.data(), h_.n_embd, h_.rms_eps,
            h_norm_.data() + t * h_.n_embd);
  });
  input_.Set(h_norm_.data(), h_.n_embd, n_tokens, h_.n_embd);
}

void Decoder::RunLayers(std::span<const BatchToken> batch) {
  const size_t n = batch.size();
  const size_t n_embd = h_.n_embd;
  const size_t n_pairs = model_.rope().n_pairs();
  ForTokens(n, [&](size_t t) {
    model_.Embed(batch[t].token, x_.data() + t * n_embd);
    model_.rope().Angles(batch[t].pos, cos_.data() + t * n_pairs, sin_.data() + t * n_pairs);
  });
  for (size_t i = 0; i < h_.n_layer; ++i) {
    const LayerWeights& layer = model_.layers()[i];
    NormInput(layer.attn_norm, n);
    Attention(batch, i);
    NormInput(layer.ffn_norm, n);
    if (h_.n_expert == 0) {
      GateAndUp(layer.ffn, h_.layers[i].n_ff, n);
      MultiplyOntoX(layer.ffn.down, layer.ffn.down_bias, n);
    } else {
      Experts(layer, n);
    }
  }

  // Logits of those that want them: their rows are brought together first.
  size_t n_logits = 0;
  for (size_t t = 0; t < n; ++t) {
    if (!batch[t].want_logits) continue;
    RmsNorm(x_.data() + t * n_embd, model_.output_norm().data(), n_embd, h_.rms_eps,
            h_norm_.data() + n_logits * n_embd);
    ++n_logits;
  }
  n_logits_ = n_logits;
  n_hidden_ = 0;
  // Rows of h_norm_ behind those of the logits are free, as no token wants both.
  for (size_t t = 0; t < n; ++t) {
    if (!batch[t].want_hidden) continue;
    RmsNorm(x_.data() + t * n_embd, model_.output_norm().data(), n_embd, h_.rms_eps,
            h_norm_.data() + (n_logits + n_hidden_) * n_embd);
    ++n_hidden_;
  }
  if (n_logits == 0) return;
  input_.Set(h_norm_.data(), n_embd, n_logits, n_embd);
  const Product product{&model_.output(), logits_.data(), h_.n_vocab};
  Multiply({&product, 1});
  if (!model_.output_bias().empty()) {
    for (size_t t = 0; t < n_logits; ++t)
      AddBias(model_.output_bias(), logits_.data() + t * h_.n_vocab);
  }
}

void Decoder::Attention(std::span<const BatchToken> batch, size_t i) {
  const LayerWeights& layer = model_.layers()[i];
  const LayerHparams& lh = h_.layers[i];
  const size_t n = batch.size();
  const size_t dk = h_.head_dim_k;
  const size_t n_pairs = model_.rope().n_pairs();
  const Product products[] = {{&layer.q, q_.data(), max_q_},
                              {&layer.k, k_.data(), max_kv_k_},
                              {&layer.v, v_.data(), max_kv_v_}};
  Multiply(products);

  const auto finish_head = [&](size_t t, const std::vector<float>& norm, float* head) {
    if (!norm.empty()) RmsNorm(head, norm.data(), dk, h_.rms_eps, head);
    if (layer.rotate)
      model_.rope().Rotate(cos_.data() + t * n_pairs, sin_.data() + t * n_pairs, head);
  };
  // Neighbouring positions share cache lines of the page: a thread takes several.
  const size_t threads = static_cast<size_t>(pool_.n_threads());
  const size_t group = std::clamp<size_t>(n / (4 * threads), 1, 16);
  ForTokens((n + group - 1) / group, [&](size_t g) {
    for (size_t t = g * group; t < std::min(n, (g + 1) * group); ++t) {
      float* q = q_.data() + t * max_q_;
      float* k = k_.data() + t * max_kv_k_;
      float* v = v_.data() + t * max_kv_v_;
      AddBias(layer.q_bias, q);
      AddBias(layer.k_bias, k);
      AddBias(layer.v_bias, v);
      for (size_t head = 0; head < lh.n_head; ++head) finish_head(t, layer.q_norm, q + head * dk);
      for (size_t head = 0; head < lh.n_head_kv; ++head)
        finish_head(t, layer.k_norm, k + head * dk);
      const size_t pos = static_cast<size_t>(batch[t].pos);
      uint8_t* page = batch[t].pages[pos / kKvPage];
      for (size_t head = 0; head < lh.n_head_kv; ++head) {
        StoreKv(kv_.head(), pos % kKvPage, k + head * dk, v + head * h_.head_dim_v,
                page + kv_.head_offset(i, head));
      }
    }
  });
  Attend(batch, i);
  input_.Set(att_.data(), max_att_, n, lh.n_head * size_t{h_.head_dim_v});
  MultiplyOntoX(layer.o, layer.o_bias, n);
}

void Decoder::FindRuns(std::span<const BatchToken> batch, size_t most) {
  runs_.clear();
  for (size_t t = 0; t < batch.size(); ++t) {
    if (!runs_.empty() && runs_.back().n < most && batch[t].pages == batch[t - 1].pages &&
        batch[t].pos == batch[t - 1].pos + 1 && static_cast<size_t>(batch[t].pos) % kKvPage != 0) {
      ++runs_.back().n;
    } else {
      runs_.push_back({static_cast<uint32_t>(t), 1});
    }
  }
}

void Decoder::Attend(std::span<const BatchToken> batch, size_t i) {
  const LayerHparams& lh = h_.layers[i];
  const size_t n_kv = lh.n_head_kv;
  const size_t per_kv = lh.n_head / n_kv;
  FindRuns(batch, AttentionTokens(per_kv));
  // Head by head, so that what the threads read at a time stays in the shared cache.
  const size_t n_items = n_kv * runs_.size();
  const auto args_of = [&](size_t item) {
    const Run& run = runs_[item % runs_.size()];
    const size_t head = item / runs_.size();
    return AttentionArgs{&kv_.head(),
                         batch[run.first].pages,
                         kv_.head_offset(i, head),
                         static_cast<size_t>(batch[run.first].pos),
                         run.n,
                         per_kv,
                         1.0f / std::sqrt(static_cast<float>(h_.head_dim_k)),
                         q_.data() + run.first * max_q_ + head * per_kv * h_.head_dim_k,
                         max_q_,
                         att_.data() + run.first * max_att_ + head * per_kv * h_.head_dim_v,
                         max_att_};
  };
  const size_t threads = static_cast<size_t>(pool_.n_threads());
  bool split = threads > 1 && batch.size() <= kSplitTokens && n_items < 4 * threads;
  size_t most_segments = 1;
  for (const Run& run : runs_) {
    most_segments = std::max(most_segments,
                             NumSegments(static_cast<size_t>(batch[run.first].pos) / kKvPage + 1));
  }
  split = split && most_segments > 1;
  if (!split) {
    pool_.For(n_items, [&](size_t item) { lutra::Attend(args_of(item)); });
    return;
  }
  const auto states_of = [&](size_t item) {
    const Run& run = runs_[item % runs_.size()];
    const size_t query = run.first * lh.n_head + item / runs_.size() * run.n * per_kv;
    return states_.data() + query * kMaxSegments * StateFloats(kv_.head());
  };
  pool_.For(n_items * most_segments, [&](size_t part) {
    const size_t item = part / most_segments;
    const AttentionArgs args = args_of(item);
    if (part % most_segments < NumSegments(args.n_pages())) {
      AttendSegment(args, part % most_segments, states_of(item));
    }
  });
  pool_.For(n_items, [&](size_t item) { MergeSegments(args_of(item), states_of(item)); });
}

void Decoder::GateAndUp(const FfnWeights& ffn, size_t n_ff, size_t n_tokens) {
  const Product products[] = {{&ffn.gate, gate_.data(), n_ff}, {&ffn.up, up_.data(), n_ff}};
  MultiplyTogether(products, [&](size_t begin, size_t end) {
    for (size_t t = 0; t < n_tokens; ++t) {
      float* gate = gate_.data() + t * n_ff + begin;
      float* up = up_.data() + t * n_ff + begin;
      AddBias(ffn.gate_bias, begin, end - begin, gate);
      AddBias(ffn.up_bias, begin, end - begin, up);
      SiluMul(gate, up, end - begin, gate);
    }
  });
  input_.Set(gate_.data(), n_ff, n_tokens, n_ff);
}

void Decoder::AddExpert(const FfnWeights& ffn, size_t n_ff, size_t n_tokens,
                        FunctionRef<ExpertShare(size_t)> share_of) {
  GateAndUp(ffn, n_ff, n_tokens);
  const Product down{&ffn.down, expert_y_.data(), h_.n_embd};
  MultiplyTogether({&down, 1}, [&](size_t begin, size_t end) {
    for (size_t j = 0; j < n_tokens; ++j) {
      float* y = expert_y_.data() + j * h_.n_embd + begin;
      AddBias(ffn.down_bias, begin, end - begin, y);
      const ExpertShare share = share_of(j);
      AddScaled(y, share.weight, end - begin, y_.data() + share.token * h_.n_embd + begin);
    }
  });
}

void Decoder::Experts(const LayerWeights& layer, size_t n) {
  const size_t n_embd = h_.n_embd;
  const size_t n_used = h_.n_expert_used;
  const Product route{&layer.router, router_.data(), h_.n_expert};
  Multiply({&route, 1});
  ForTokens(n, [&](size_t t) {
    float* p = router_.data() + t * h_.n_expert;
    Softmax(h_.n_expert, p);
    uint32_t* chosen = chosen_.data() + t * n_used;
    float* weight = chosen_weight_.data() + t * n_used;
    float sum = 0;
    for (size_t c = 0; c < n_used; ++c) {  // ties go to the lower index
      size_t best = h_.n_expert;
      for (size_t e = 0; e < h_.n_expert; ++e) {
        if (std::find(chosen, chosen + c, e) != chosen + c) continue;
        if (best == h_.n_expert || p[e] > p[best]) best = e;
      }
      chosen[c] = static_cast<uint32_t>(best);
      weight[c] = p[best];
      sum += p[best];
    }
    if (h_.arch->normalize_experts) {
      for (size_t c = 0; c < n_used; ++c) weight[c] /= std::max(sum, kLeastExpertSum);
    }
  });

  std::fill_n(y_.data(), n * n_embd, 0.0f);
  if (h_.arch->shared_expert) {
    // The gate's product goes to the first number of each token's router row, which is free now.
    const Product gate{&layer.shared_gate, router_.data(), h_.n_expert};
    Multiply({&gate, 1});
  }
  // Expert by expert, ascending: a token's sum has the same order whatever else is in the batch.
  for (uint32_t e = 0; e < h_.n_expert; ++e) {
    size_t m = 0;
    for (size_t t = 0; t < n; ++t) {
      for (size_t c = 0; c < n_used; ++c) {
        if (chosen_[t * n_used + c] != e) continue;
        expert_tokens_[m] = static_cast<uint32_t>(t);
        expert_rank_[m] = static_cast<uint32_t>(t * n_used + c);
        std::copy_n(h_norm_.data() + t * n_embd, n_embd, expert_x_.data() + m * n_embd);
        ++m;
      }
    }
    if (m == 0) continue;
    input_.Set(expert_x_.data(), n_embd, m, n_embd);
    AddExpert(layer.experts[e], h_.n_ff_exp, m, [&](size_t j) {
      return ExpertShare{expert_tokens_[j], chosen_weight_[expert_rank_[j]]};
    });
  }
  if (h_.arch->shared_expert) {
    input_.Set(h_norm_.data(), n_embd, n, n_embd);
    AddExpert(layer.shared, h_.n_ff_shexp, n, [&](size_t t) {
      return ExpertShare{static_cast<uint32_t>(t), Sigmoid(router_[t * h_.n_expert])};
    });
  }
  ForTokens(n, [&](size_t t) { Add(y_.data() + t * n_embd, n_embd, x_.data() + t * n_embd); });
}

}  // namespace lutra
