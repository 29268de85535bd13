// The logarithmic number format: how a code's bits mean a sign, an exponent and a value.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/macros.h"

namespace lns {

// A code is a sign bit over a (bits-1)-bit exponent e; e = 0 is zero, else the value is +-2^(e/gamma) * 2^k.
struct Format {
  int bits;
  int gamma;

  LNS_HD int e_max() const { return (1 << (bits - 1)) - 1; }
  LNS_HD int sign_bit() const { return 1 << (bits - 1); }
  LNS_HD int exponent(int code) const { return code & e_max(); }
  LNS_HD bool negative(int code) const { return (code & sign_bit()) != 0; }
  // Zero is always stored as +0.
  LNS_HD int encode(bool negative, int e) const { return e == 0 ? 0 : (negative ? sign_bit() | e : e); }
};

LNS_HD inline int log2_exact(int power_of_two) {
  int n = 0;
  while ((1 << n) < power_of_two) ++n;
  return n;
}

LNS_HD inline bool is_power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

inline void validate(const Format& f) {
  if (f.bits < 2 || f.bits > 16)
    throw std::invalid_argument("bits must be between 2 and 16, got " + std::to_string(f.bits));
  if (!is_power_of_two(f.gamma) || f.gamma > (1 << (f.bits - 1)))
    throw std::invalid_argument("gamma must be a power of two from 1 to 2^(bits-1) = " +
                                std::to_string(1 << (f.bits - 1)) + ", got " + std::to_string(f.gamma));
}

// Scales are powers of two stored as float32, so k is the exponent field. NaN marks a tensor that held NaN or Inf.
constexpr int kMinScale = -126;
constexpr int kMaxScale = 127;
constexpr uint32_t kNanBits = 0x7fc00000u;

LNS_HD inline uint32_t scale_bits(int k) { return static_cast<uint32_t>(k + 127) << 23; }
LNS_HD inline bool scale_is_nan(uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }
LNS_HD inline int scale_exponent(uint32_t bits) { return static_cast<int>((bits >> 23) & 0xff) - 127; }

// k = clamp(k) to what float32 can store as a normal power of two.
LNS_HD inline int clamp_scale(int k) { return k < kMinScale ? kMinScale : (k > kMaxScale ? kMaxScale : k); }

}  // namespace lns
