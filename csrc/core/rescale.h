// Code -> code and code -> float: re-scaling, the forward format of an update-format weight, dequantization.
#pragma once

#include "core/quantizer.h"

namespace lns {

// The float32 nearest to a code's value at scale k: (-1)^s * 2^(e/gamma) * 2^k. `values` holds B_j, j = 0..gamma.
LNS_HD inline double magnitude_of(const Format& f, const uint32_t* values, int e, int k) {
  return values[e % f.gamma] * pow2(e / f.gamma + k - 23);
}
LNS_HD inline float dequantize_one(const Format& f, const uint32_t* values, int code, uint32_t scale,
                                   int shift = 0) {  // of its block
  if (scale_is_nan(scale)) return bits_float(kNanBits);
  const int e = f.exponent(code);
  if (e == 0) return 0.0f;
  const float magnitude = static_cast<float>(magnitude_of(f, values, e, scale_exponent(scale) - shift));
  return f.negative(code) ? -magnitude : magnitude;
}

// e + gamma*(k_old - k_new), in exact integers; above e_max it clips, below 1 the quantizer's underflow policy applies.
LNS_HD inline int rescale_code(const Quantizer& q, int code, int k_old, int k_new, uint32_t u24) {
  const Format& f = q.format;
  const int old_e = f.exponent(code);
  if (old_e == 0) return 0;
  int e = old_e + f.gamma * (k_old - k_new);
  if (e > f.e_max()) e = f.e_max();
  if (e < 1) {
    if (q.underflow == Underflow::clamp)
      e = 1;
    else
      e = q.underflow == Underflow::stochastic &&
          survives_underflow(q, magnitude_of(f, q.values, old_e, k_old - k_new), u24);
  }
  return f.encode(f.negative(code), e);
}

// An update-format exponent in steps of the coarser forward format, rounded to nearest; not yet clamped.
LNS_HD inline int coarsen(int e, int shift) { return shift == 0 ? e : (e + (1 << (shift - 1))) >> shift; }

// How a tensor of update-format codes becomes forward codes: drop `shift` bits, then move by `offset` steps.
struct Coarsening {
  Format update, forward;
  int shift;   // log2(gamma_update / gamma_forward)
  int offset;  // gamma_forward * (k_update - k_forward)
};

LNS_HD inline int coarsen_code(const Coarsening& c, int code) {
  const int e = c.update.exponent(code);
  if (e == 0) return 0;
  const int moved = coarsen(e, c.shift) + c.offset;
  const int top = c.forward.e_max();
  return c.forward.encode(c.update.negative(code), moved < 1 ? 1 : (moved > top ? top : moved));
}

// Does the forward format reach fewer octaves than the update format? Then its scale follows the largest code.
LNS_HD inline bool spans_fewer_octaves(const Format& forward, const Format& update) {
  return (int64_t{1} << (forward.bits - 1)) * update.gamma < (int64_t{1} << (update.bits - 1)) * forward.gamma;
}

// The forward scale exponent for a tensor whose largest update exponent is e_top (0: all zero) at scale k.
LNS_HD inline int forward_scale(const Format& forward, const Format& update, int shift, int e_top, int k) {
  if (!spans_fewer_octaves(forward, update)) return k;
  if (e_top == 0) return 0;
  const int L = coarsen(e_top, shift) + forward.gamma * k;
  return clamp_scale(static_cast<int>(ceil_div(L - forward.e_max(), forward.gamma)));
}

}  // namespace lns
