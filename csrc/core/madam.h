// One LNS-Madam step on one weight code: float32 with one rounding per written operation, then integers.
#pragma once

#include "core/quantizer.h"

namespace lns {

// IEEE float32 operations that no compiler may fuse or reassociate. Host builds use -ffp-contract=off.
#if defined(__CUDA_ARCH__)
LNS_HD inline float mul(float a, float b) { return __fmul_rn(a, b); }
LNS_HD inline float add(float a, float b) { return __fadd_rn(a, b); }
LNS_HD inline float div(float a, float b) { return __fdiv_rn(a, b); }
LNS_HD inline float root(float a) { return __fsqrt_rn(a); }
#else
inline float mul(float a, float b) { return a * b; }
inline float add(float a, float b) { return a + b; }
inline float div(float a, float b) { return a / b; }
inline float root(float a) { return __builtin_sqrtf(a); }
#endif

// Scalars of a step, computed in double and rounded once (spec section 5).
struct MadamStep {
  float beta;  // decay of the second moment
  float one_minus_beta;
  float bias_correction;  // 1 - beta^t
  float bound;            // clamp of the normalized gradient
  float codes_per_unit;   // c = lr * gamma_update
  bool stochastic;        // floor(x + u) instead of round half to even
};

constexpr float kMaxMadamStep = 65536.0f;  // more than any exponent's range: farther is clamped anyway

// v <- beta*v + ((1-beta)*g)*g
LNS_HD inline float madam_moment(const MadamStep& s, float v, float g) {
  return add(mul(s.beta, v), mul(mul(s.one_minus_beta, g), g));
}

// How far to move, in codes, before rounding and before the weight's sign is applied. A gradient that is not finite
// moves nothing (its moment is not finite either, and stays visible). Selections instead of branches: loops over these
// functions become vectors.
LNS_HD inline float madam_distance(const MadamStep& s, float v, float g) {
  const float normalized = div(g, root(div(v, s.bias_correction)));
  float ghat = g == 0.0f ? 0.0f : normalized;
  ghat = ghat > s.bound ? s.bound : ghat;
  ghat = ghat < -s.bound ? -s.bound : ghat;
  float x = mul(s.codes_per_unit, ghat);
  x = x > kMaxMadamStep ? kMaxMadamStep : x;
  x = x < -kMaxMadamStep ? -kMaxMadamStep : x;
  return x == x ? x : 0.0f;
}
LNS_HD inline int round_half_even(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction
  return static_cast<int>(add(add(x, kShift), -kShift));
}
// floor(x + u), u = u24 * 2^-24
LNS_HD inline int round_stochastic(float x, uint32_t u24) {
  const float y = add(x, mul(static_cast<float>(static_cast<int32_t>(u24)), 5.9604644775390625e-08f));
  const int truncated = static_cast<int>(y);
  return truncated - (y < static_cast<float>(truncated));
}

// The largest exponent a weight may reach: the code of `cap`, a magnitude, at the weight's scale.
LNS_HD inline int cap_code(const Quantizer& q, float cap, uint32_t scale) {
  if (scale_is_nan(scale) || !(cap > 0.0f)) return 1;
  if (float_bits(cap) >= kInfBits) return q.format.e_max();
  const int e = log_code(q, float_bits(cap)) - q.format.gamma * scale_exponent(scale);
  return e < 1 ? 1 : (e > q.format.e_max() ? q.format.e_max() : e);
}

// e <- clamp(e - sign(w)*step, 1, e_cap); zeros stay zero and signs never flip.
LNS_HD inline int madam_code(const Format& f, int code, int step, int e_cap) {
  const int e = f.exponent(code);
  const bool negative = f.negative(code);
  int moved = negative ? e + step : e - step;
  moved = moved > e_cap ? e_cap : moved;
  moved = moved < 1 ? 1 : moved;
  const int result = negative ? f.sign_bit() | moved : moved;
  return e == 0 ? 0 : result;
}

}  // namespace lns
