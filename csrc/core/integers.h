// Integers of few bits at one scale: symmetric around zero, or from the smallest number to the largest. Channels of
// small range may be some octaves finer, and then stand shifted at the scale of the others (ShiftQuant).
#pragma once

#include "core/madam.h"

namespace lns {

// No scale is smaller: a subnormal one holds too few bits to bring the largest magnitude to where codes end.
constexpr float kSmallestScale = 0x1p-126f;
// A scale times the largest code is at most this before rounding, so that float32 holds it.
constexpr double kLargestValue = 0x1.fffffcp127;

// The scale at which a magnitude, given as float bits, is `largest`; 1 for zero, NaN for what is not finite.
LNS_HD inline float scale_to(uint32_t top, double largest) {
  if (top == 0) return 1.0f;
  if (top >= kInfBits) return bits_float(kNanBits);
  const float scale = div(bits_float(top), static_cast<float>(largest));
  const float most = static_cast<float>(kLargestValue / largest);
  if (scale < kSmallestScale) return kSmallestScale;
  return scale > most ? most : scale;
}

// How far numbers reach below zero and above it, as bits of magnitudes; what is not finite compares above all else.
struct Ends {
  uint32_t below, above;
};
LNS_HD inline void widen(Ends& ends, uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu, below = bits >> 31 ? magnitude : 0, above = magnitude ^ below;
  ends.below = ends.below > below ? ends.below : below;
  ends.above = ends.above > above ? ends.above : above;
}

struct IntegerGrid {
  int top;          // the largest magnitude of a code before its shift
  int groups;       // octaves of shifts, and one
  bool zero_point;  // codes are from the smallest to the largest number, `top` apart, not from -top to top
  LNS_HD int largest() const { return top << (groups - 1); }
};

// Half of what codes reach over, as float bits; without a zero point, the largest magnitude.
LNS_HD inline uint32_t range_of(const IntegerGrid& g, const Ends& e) {
  if (g.zero_point) return float_bits(add(mul(bits_float(e.above), 0.5f), mul(bits_float(e.below), 0.5f)));
  return e.above > e.below ? e.above : e.below;
}

// The step of the channel of the widest range.
LNS_HD inline float step_for(const IntegerGrid& g, uint32_t widest) {
  const float step = scale_to(widest, g.zero_point ? g.top / 2.0 : g.top);
  const float most = static_cast<float>(kLargestValue / g.top);
  return step > most ? most : step;
}

// How codes of one channel come about.
struct IntegerChannel {
  float step;           // of the widest channel
  float finer;          // 2^k: this one's steps in one of those
  int shift;            // groups - 1 - k
  int lowest, highest;  // before the shift
};
LNS_HD inline IntegerChannel channel_of(const IntegerGrid& g, const Ends& e, uint32_t widest) {
  const uint32_t range = range_of(g, e);
  const float step = step_for(g, widest);
  if (step != step) return {.step = step, .finer = 1, .shift = g.groups - 1, .lowest = 0, .highest = 0};
  const int most = g.groups - 1;
  int k = most;
  if (range != 0) {  // floor(log2(widest / range))
    const int octaves = static_cast<int>(float_bits(div(bits_float(widest), bits_float(range))) >> 23) - 127;
    k = octaves < most ? octaves : most;
  }
  const float finer = bits_float(static_cast<uint32_t>(127 + k) << 23);
  const int lowest = g.zero_point ? -round_half_even(mul(div(bits_float(e.below), step), finer)) : -g.top;
  return {.step = step,
          .finer = finer,
          .shift = most - k,
          .lowest = lowest,
          .highest = g.zero_point ? lowest + g.top : g.top};
}
// The scale of all codes.
LNS_HD inline float scale_of(const IntegerGrid& g, float step) {
  return mul(step, bits_float(static_cast<uint32_t>(128 - g.groups) << 23));
}

// A number in steps. With a step that is NaN no number has a code but 0.
LNS_HD inline float in_steps(const IntegerChannel& c, float x) { return mul(div(x, c.step), c.finer); }
LNS_HD inline int integer_code(const IntegerChannel& c, int rounded) {
  const int code = rounded < c.lowest ? c.lowest : rounded;
  return (code > c.highest ? c.highest : code) * (1 << c.shift);
}

// What a code of `steps` stands for; a code of zero has its number's sign.
LNS_HD inline float integer_value(const IntegerChannel& c, float steps, float scale) {
  const float code = static_cast<float>(integer_code(c, round_half_even(steps)));
  return mul(bits_float((float_bits(code) & 0x7fffffffu) | (float_bits(steps) & 0x80000000u)), scale);
}

}  // namespace lns
