// The float parts of a forward pass. Each is one operation sequence over a virtual width of 16 lanes, so results are the same
// bits on every SIMD target. None allocates, throws or starts threads; disjoint outputs may be written concurrently.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

// out[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * w[i]. out may be x.    Zhang and Sennrich 2019, RMSNorm.
void RmsNorm(const float* x, const float* w, size_t n, float eps, float* out);

// x[i] += y[i].
void Add(const float* y, size_t n, float* x);
// x[i] = fma(scale, y[i], x[i]).
void AddScaled(const float* y, float scale, size_t n, float* x);

// out[i] = SiLU(gate[i]) * up[i],  SiLU(x) = x / (1 + e^-x).    Shazeer 2020, SwiGLU.
void SiluMul(const float* gate, const float* up, size_t n, float* out);

// x[i] = e^(x[i] - max x) / sum, in place.
void Softmax(size_t n, float* x);

// Logistic function of one number.
float Sigmoid(float x);

// float to IEEE binary16, round to nearest even, and back.
void F32ToF16(const float* x, size_t n, uint16_t* out);
void F16ToF32(const uint16_t* x, size_t n, float* out);

}  // namespace lutra
