#include "kernels/attention_exact.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/quant_format.h"

namespace lutra {
namespace {

float Scale(const uint8_t* scales, size_t at) {
  return Bf16ToF32(LoadLe<uint16_t>(scales + 2 * at));
}

size_t KPlace(const KvHeadLayout& l, size_t at, size_t i) {
  if (l.type != KvType::kQ8) return (at / 64 * l.dk + i) * 64 + at % 64;
  return ((at / 64 * ((l.dk + 3) / 4) + i / 4) * 64 + at % 64) * 4 + i % 4;
}
int K8(const KvHeadLayout& l, const uint8_t* head, size_t at, size_t i) {
  return static_cast<int>(head[KPlace(l, at, i)]) - 128;
}
int V8(const KvHeadLayout& l, const uint8_t* head, size_t at, size_t i) {
  const size_t block = i / 64 * 64;
  return static_cast<int8_t>(
      head[l.v_columns(block) + (at / 4 * l.block_columns(block) + i % 64) * 4 + at % 4]);
}
float Number(KvType type, const uint8_t* numbers, size_t i) {
  return type == KvType::kF32 ? LoadLe<float>(numbers + 4 * i)
                              : F16ToF32(LoadLe<uint16_t>(numbers + 2 * i));
}

struct State {
  float max = 0, total = 0;
  float before = 0;  // the old total times a
  std::vector<float> o;
  bool empty = true;
};

// The factors of the old state and of what is new.
struct Factors {
  float a, b;
};
Factors Merge(State* s, float max, float total, float c) {
  const float old = s->empty ? max : s->max;
  s->empty = false;
  s->max = std::max(old, max);
  const Factors f{ExactExp2((old - s->max) * c), ExactExp2((max - s->max) * c)};
  s->before = s->total * f.a;
  s->total = std::fma(s->total, f.a, total * f.b);
  return f;
}

float SumOf16(const float* p, size_t n) {
  float s[16] = {};
  for (size_t j = 0; j < n; ++j) s[j % 16] += p[j];
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) s[i] += s[i + half];
  }
  return s[0];
}

}  // namespace

float ExactExp2(float x) {
  if (std::isnan(x)) return x;
  x = std::max(x, kExp2Least);
  const float t = x + kRoundMagic;
  const float r = x - (t - kRoundMagic);
  float p = kExp2Poly[4];
  for (int i = 3; i >= 0; --i) p = std::fma(p, r, kExp2Poly[i]);
  p = std::fma(p, r, 1.0f);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(t) << 23));
}

float KvElement(const KvHeadLayout& l, const uint8_t* head, bool of_v, size_t at, size_t i) {
  if (l.type == KvType::kQ8) {
    return of_v ? Scale(head + l.v_scales, at) * static_cast<float>(V8(l, head, at, i))
                : Scale(head + l.k_scales, at) * static_cast<float>(K8(l, head, at, i));
  }
  return of_v ? Number(l.type, head + l.v, at * l.v_width + i)
              : Number(l.type, head, KPlace(l, at, i));
}

void ExactAttention(const AttentionArgs& args, float* out) {
  const KvHeadLayout& l = *args.layout;
  const bool is_q8 = l.type == KvType::kQ8;
  std::vector<float> q(args.q, args.q + l.dk);
  std::vector<int8_t> q8(l.dk);
  float c = args.scale * kLog2E;
  if (is_q8) {
    HadamardRow(q.data(), l.dk);
    const float scale = QuantizeHeadRow(q.data(), l.dk, q8.data());
    c = scale * args.scale * kLog2E * (1.0f / static_cast<float>(HadamardBlock(l.dk)));
  }

  State all;
  all.o.resize(l.dv);
  const size_t per_segment = SegmentPages(args.n_pages());
  for (size_t segment = 0; segment < NumSegments(args.n_pages()); ++segment) {
    State state;
    state.o.resize(l.dv);
    for (size_t page = segment * per_segment;
         page < std::min(args.n_pages(), (segment + 1) * per_segment); ++page) {
      const uint8_t* head = args.pages[page] + args.offset;
      const size_t n = std::min(kKvPage, args.first_position + 1 - page * kKvPage);
      float t[kKvPage], p[kKvPage];
      float max = 0;
      for (size_t j = 0; j < n; ++j) {
        if (is_q8) {
          int32_t sum = 0;
          for (size_t i = 0; i < l.dk; ++i) sum += q8[i] * K8(l, head, j, i);
          t[j] = static_cast<float>(sum) * Scale(head + l.k_scales, j);
        } else {
          t[j] = 0;
          for (size_t i = 0; i < l.dk; ++i)
            t[j] = std::fma(q[i], KvElement(l, head, false, j, i), t[j]);
        }
        max = j == 0 ? t[j] : std::max(max, t[j]);
      }
      for (size_t j = 0; j < n; ++j) p[j] = ExactExp2((t[j] - max) * c);
      const auto [a, b] = Merge(&state, max, SumOf16(p, n), c);

      if (!is_q8) {
        for (size_t i = 0; i < l.dv; ++i) {
          float sum = 0;
          for (size_t j = 0; j < n; ++j) sum = std::fma(p[j], KvElement(l, head, true, j, i), sum);
          state.o[i] = std::fma(sum, b, state.o[i] * a);
        }
        continue;
      }
      float greatest = 0;
      for (size_t j = 0; j < n; ++j) {
        const float s = Scale(head + l.v_scales, j);
        if (!(s <= greatest)) greatest = s;  // NaN too, and it stays: nothing is below it
        if (std::isnan(greatest)) break;
      }
      const float r = state.before >= kByteWeights * b ? 255.0f : 65535.0f;
      const float inverse = greatest > 0.0f ? r / greatest : 0.0f;
      int32_t w[kKvPage] = {};
      for (size_t j = 0; j < n; ++j) {
        const float factor = std::min(Scale(head + l.v_scales, j) * inverse, r);
        const float rounded = std::fma(p[j], factor, kIntegerMagic) - kIntegerMagic;
        w[j] = rounded >= 0 ? static_cast<int32_t>(rounded) : 0;  // NaN: the result is NaN anyway
      }
      for (size_t i = 0; i < l.dv; ++i) {
        int32_t sum = 0;
        for (size_t j = 0; j < n; ++j) sum += w[j] * V8(l, head, j, i);
        state.o[i] = std::fma(static_cast<float>(sum), greatest * (1.0f / r) * b, state.o[i] * a);
      }
    }
    const auto [a, b] = Merge(&all, state.max, state.total, c);
    for (size_t i = 0; i < l.dv; ++i) all.o[i] = std::fma(state.o[i], b, all.o[i] * a);
  }
  const float inverse = 1.0f / all.total;
  for (size_t i = 0; i < l.dv; ++i) out[i] = all.o[i] * inverse;
}

}  // namespace lutra
