// Causal attention of tokens over a paged KV cache, for one KV head and the query heads that share it.
//
// For a query q at position `pos` and each page of kKvPage positions, of which n are at or before pos:
//   t_j = q . k_j                                  j < n; f32, f16: fused multiply-adds, dimensions ascending from 0
//                                                  q8: float(exact integer sum of q8 * k8) * k_scale_j, q quantized like a row of K
//   m = max t_j,   p_j = 2^max((t_j - m) * c, -64) c = scale * log2 e (q8: times the scale of q, over the Hadamard block)
//   sum = of p_j over j % 16 ascending, then the tree of fixed_order-inl.h
// merged into a running state (M, L, O) by the online softmax (Milakov and Gimelshein 2018):
//   M' = max(M, m),  a = 2^max((M - M') c, -64),  b = 2^max((m - M') c, -64),  L' = fma(L, a, sum * b)
//   f32, f16: O' = fma(sum_j p_j v_j, b, O * a)    positions ascending from 0
//   q8:       O' = fma(float(sum_j w_j v8_j), V * (1 / r) * b, O * a)
//             V = max over j < n of v_scale_j,  w_j = fma(p_j, min(v_scale_j * (r / V), r), 2^23) - 2^23, r = 255 or 65535
// The sum of w * v8 is an exact integer (below 128 * 65535 * 127 < 2^31). One byte a weight suffices where no single position
// matters much: r = 255 if L * a >= kByteWeights * b, that is if the page's largest weight is a small part of what was summed
// before it; else r = 65535. The choice is a function of the sequence alone.
//
// Pages are walked from 0 in segments of SegmentPages(pages up to pos) pages, each starting an empty state; the segments' states
// are merged in order by the same formulas, and out = O * (1 / L). So a token's result depends on neither the chunking of the
// prompt, the batch, nor how segments are shared out to threads; and it is the same on every SIMD target. attention_exact.h is
// the scalar definition.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_cache.h"

namespace lutra {

inline constexpr float kByteWeights = 8.0f;

// At most kMaxSegments segments of at least 8 pages, so that one stream occupies many threads.
inline constexpr size_t kMaxSegments = 16;
constexpr size_t SegmentPages(size_t n_pages) {
  const size_t even = (n_pages + kMaxSegments - 1) / kMaxSegments;
  return even < 8 ? 8 : even;
}
constexpr size_t NumSegments(size_t n_pages) {
  return (n_pages + SegmentPages(n_pages) - 1) / SegmentPages(n_pages);
}

inline constexpr size_t kMaxHeadsPerKv = 64;  // what models may have; the kernels take any number

// Tokens of one sequence at consecutive positions within one page, and one KV head.
struct AttentionArgs {
  const KvHeadLayout* layout;
  const uint8_t* const* pages;  // of the sequence: page p holds positions [p * kKvPage, ...)
  size_t offset;                // of the layer and KV head in each page, in bytes
  size_t first_position;  // of the first token; all positions up to the last token's are stored
  size_t n_tokens;        // first_position % kKvPage + n_tokens <= kKvPage
  size_t n_heads;         // query heads that share the KV head
  float scale;            // of the scores
  const float* q;         // [n_tokens, n_heads, dk], q_stride floats a token
  size_t q_stride;
  float* out;  // [n_tokens, n_heads, dv], out_stride floats a token
  size_t out_stride;

  size_t n_pages() const { return first_position / kKvPage + 1; }
};

// Tokens that are worth taking together: what a KV page is read for once.
constexpr size_t AttentionTokens(size_t n_heads) { return n_heads >= 64 ? 1 : 64 / n_heads; }

// The whole result. Disjoint outputs may be written concurrently. Uses about 100 KiB of stack. Never throws, never allocates.
void Attend(const AttentionArgs& args);

// The same in two steps, to use several threads for few tokens: the state of one segment, then the merge of all of them.
//   states [NumSegments(n_pages), n_tokens * n_heads, kStateHead + v_width], aligned to 64 bytes: M, L, c and O of each query;
//   `segment`'s part is written.
inline constexpr size_t kStateHead = 16;
constexpr size_t StateFloats(const KvHeadLayout& layout) {
  return kStateHead + layout.v_width;
}  // a query and segment
void AttendSegment(const AttentionArgs& args, size_t segment, float* states);
void MergeSegments(const AttentionArgs& args, const float* states);

}  // namespace lutra
