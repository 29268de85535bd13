// Rounding to powers of two of a unit, or to zero, up to a largest one: without bias where random numbers are drawn.
#pragma once

#include "core/quantizer.h"

namespace lns {

// Magnitudes become 0 or unit * 2^i, i = 0 .. octaves. Below the unit and above it each choice between neighbours is
// stochastic, with probability linear in the value, or the nearer one.
struct PowerRounding {
  int octaves;
  bool stochastic_below, stochastic_above;

  LNS_HD bool draws() const { return stochastic_below || stochastic_above; }
  LNS_HD float largest() const { return static_cast<float>(pow2(octaves)); }  // in units
};

// One number, u in [0, 1); without branches, so that loops become vectors.
LNS_HD inline float round_to_power(const PowerRounding& r, float largest, float unit, float x, float u) {
  const float magnitude = bits_float(float_bits(x) & 0x7fffffffu);
  float ratio = magnitude / unit;
  ratio = ratio > largest ? largest : ratio;
  const float lower = bits_float(float_bits(ratio) & 0x7f800000u);  // the power at or below
  const float below_at = r.stochastic_below ? u : 0.5f, above_at = r.stochastic_above ? u : 0.5f;
  const float large = (ratio - lower) / lower > above_at ? 2 * lower : lower;
  const float small = ratio > below_at ? 1.0f : 0.0f;
  const float value = unit * (ratio < 1 ? small : large);
  const float negative = -value;
  const float with_sign = x < 0 ? negative : value;
  return x == 0 ? 0.0f : with_sign;
}

}  // namespace lns
