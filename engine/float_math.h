// exp, log and pow that give the same bits on every machine: only IEEE additions, multiplications
// and divisions in one fixed order (no library functions, no fused multiply-adds, round to
// nearest). Sampling uses nothing else, so that a seed gives the same tokens everywhere. All
// functions are pure and thread-safe and never throw. Source: argument reduction by ln 2 and Taylor
// series for exp; log((1+s)/(1-s)) = 2 atanh(s) for log.
#pragma once

#include <cstddef>

namespace lutra {

// e^x, relative error below 4e-16. 0 where the result would be below 2.3e-308, infinity above x =
// 709.78, NaN for NaN.
double Exp(double x);

// Natural logarithm, relative error below 4e-16. -infinity for 0, NaN for x < 0 and NaN.
double Log(double x);

// x^y for x >= 0 (NaN for x < 0) as Exp(y * Log(x)): relative error below 3e-16 * (1 + |y ln x|).
// x^0 is 1.
double Pow(double x, double y);

// x[i] = e^(x[i] - max) for x[i] <= max, max finite; the difference is rounded to float first.
// Error below 0.504 ulp of float. Results below FLT_MIN (differences under -87.33) are exactly 0,
// so that flush-to-zero modes change nothing; so are those of NaN and -infinity.
void ExpDifferences(float max, float* x, size_t n);

// Sum of e^(x[i] - max), each term as ExpDifferences rounds it; +infinity counts as FLT_MAX.
double SumExpDifferences(float max, const float* x, size_t n);

// Sum of floats in double, in one fixed order of additions.
double SumFloats(const float* x, size_t n);

}  // namespace lutra
