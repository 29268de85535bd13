// Floating-point numbers of 8 bits, E4M3 and E5M2 (arXiv 2209.05433), at one scale.
#pragma once

#include "core/integers.h"

namespace lns {

struct Float8 {
  int mantissa;  // bits
  int bias;
  int top;  // code of the largest number
};
LNS_HD constexpr Float8 e4m3_or_e5m2(bool e5m2) {
  if (e5m2) return {.mantissa = 2, .bias = 15, .top = 0x7b};
  return {.mantissa = 3, .bias = 7, .top = 0x7e};
}

// The nearest number, half to even; beyond the largest it is that. Without branches, so that loops become vectors.
LNS_HD inline int to_float8(const Float8& f, float x) {
  const uint32_t magnitude = float_bits(x) & 0x7fffffffu;
  const int rest = 23 - f.mantissa;
  const uint32_t even = (magnitude >> rest) & 1;
  const uint32_t rounded =
      ((magnitude + (1u << (rest - 1)) - 1 + even) >> rest) - (static_cast<uint32_t>(127 - f.bias) << f.mantissa);
  // Below the first normal number all are multiples of one unit: a float of 2^23 units has no room for less.
  const float large = bits_float(static_cast<uint32_t>(127 + 1 - f.bias - f.mantissa + 23) << 23);
  const uint32_t small = float_bits(add(bits_float(magnitude), large)) - float_bits(large);
  const int code = static_cast<int>(magnitude < static_cast<uint32_t>(128 - f.bias) << 23 ? small : rounded);
  return (code > f.top ? f.top : code) | static_cast<int>(float_bits(x) >> 31) << 7;
}

// What a code of a finite number stands for.
LNS_HD inline float float8_value(const Float8& f, int code, float scale) {
  const uint32_t bits = static_cast<uint32_t>(code & 127) << (23 - f.mantissa) | static_cast<uint32_t>(code >> 7) << 31;
  const float rebias = bits_float(static_cast<uint32_t>(127 + 127 - f.bias) << 23);
  return mul(mul(bits_float(bits), rebias), scale);
}

}  // namespace lns
