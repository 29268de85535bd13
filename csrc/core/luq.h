// LUQ's gradients (arXiv 2112.10769): powers of two of alpha, or zero, rounded without bias. See
// lns_sim/comparators/luq.py.
#pragma once

#include "core/quantizer.h"

namespace lns {

// What the quantizer needs to know: the largest magnitude is alpha * limit; which of its two parts draw.
struct Luq {
  float alpha, limit;
  bool stochastic_below, stochastic_above;
};

inline Luq make_luq(float top, int exponents, bool stochastic_below, bool stochastic_above) {
  const float limit = static_cast<float>(pow2(exponents));
  return {top / limit, limit, stochastic_below, stochastic_above};
}

// One number, u in [0, 1); without branches, so that loops become vectors.
LNS_HD inline float luq_one(const Luq& q, float x, float u) {
  const float magnitude = bits_float(float_bits(x) & 0x7fffffffu);
  float ratio = magnitude / q.alpha;
  ratio = ratio > q.limit ? q.limit : ratio;
  const float lower = bits_float(float_bits(ratio) & 0x7f800000u);  // the power at or below
  const float below_at = q.stochastic_below ? u : 0.5f, above_at = q.stochastic_above ? u : 0.5f;
  const float large = (ratio - lower) / lower > above_at ? 2 * lower : lower;
  const float small = ratio > below_at ? 1.0f : 0.0f;
  const float value = q.alpha * (ratio < 1 ? small : large);
  const float negative = -value;
  const float with_sign = x < 0 ? negative : value;
  return x == 0 ? 0.0f : with_sign;
}

}  // namespace lns
