// Rotary position embedding (Su et al. 2021), with the linear, YaRN (Peng et al. 2023) and per-frequency ("rope_freqs", Llama 3.1)
// variants that GGUF models use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lutra {

enum class RopeKind {
  kAdjacent,  // pairs (2i, 2i + 1): llama
  kHalves,    // pairs (i, i + n_rot / 2): NEOX, qwen
};

struct RopeParams {
  RopeKind kind = RopeKind::kAdjacent;
  size_t n_rot = 0;  // leading elements of a head that rotate; even
  float freq_base = 10000.0f;
  float freq_scale = 1.0f;  // 1 / factor
  bool yarn = false;
  uint32_t n_ctx_orig = 0;  // YaRN: context the model was trained with
  float beta_fast = 32.0f, beta_slow = 1.0f;
  float magnitude = 1.0f;           // multiplies cos and sin
  std::vector<float> freq_factors;  // [n_rot / 2] divisors, or empty
};

// Angles of every position, and the rotation. Immutable; shared by threads.
class Rope {
 public:
  explicit Rope(RopeParams params);

  size_t n_pairs() const { return params_.n_rot / 2; }
  // cos and sin of position `pos` for each pair, magnitude included: [n_pairs] each. The angle is the float recurrence
  // theta <- theta * base^(-2 / n_rot) from theta = pos; sin and cos are our own polynomials in double (NaN for angles of 2^27
  // and more).
  void Angles(int32_t pos, float* cos, float* sin) const;
  // Rotates one head in place: (a, b) -> (a cos - b sin, a sin + b cos).
  void Rotate(const float* cos, const float* sin, float* head) const;

 private:
  RopeParams params_;
  float theta_scale_;
  std::vector<float> ramp_;  // YaRN: 1 where a frequency is kept, 0 where it is interpolated
};

// sin and cos of x to within 1e-15 for |x| < 2^27, NaN beyond; plain double arithmetic, the same bits everywhere.
void SinCos(double x, double* sin, double* cos);

}  // namespace lutra
