// Exact integer roundings of 2^(a/b): the only source of the quantizer's thresholds and the datapath's constants.
// No floating-point function is called, so every platform gets the same integers.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace lns {

// floor(sqrt(x)) of a 128-bit integer, by Newton's iteration from above.
inline unsigned __int128 isqrt(unsigned __int128 x) {
  if (x < 2) return x;
  int width = 0;
  for (unsigned __int128 t = x; t != 0; t >>= 1) ++width;
  unsigned __int128 r = static_cast<unsigned __int128>(1) << ((width + 1) / 2);
  for (;;) {
    const unsigned __int128 next = (r + x / r) >> 1;
    if (next >= r) return r;
    r = next;
  }
}

// The fraction bits of the powers below, and a bound of what truncation takes off them: 20 roots and 20 products, each
// off by less than 4 units.
constexpr int kPowerBits = 62;
constexpr uint64_t kPowerSlack = 1u << 8;

// 2^(a/b) for a = 0 .. b - 1, b a power of two up to 2^20, short by less than kPowerSlack units of 2^-kPowerBits.
class PowersOfTwo {
 public:
  explicit PowersOfTwo(int64_t b) {
    unsigned __int128 root = static_cast<unsigned __int128>(2) << kPowerBits;  // 2^(1/1)
    for (int64_t bit = b >> 1; bit != 0; bit >>= 1) roots_[count_++] = root = isqrt(root << kPowerBits);
  }
  uint64_t at(int64_t a) const {
    unsigned __int128 value = static_cast<unsigned __int128>(1) << kPowerBits;
    for (int i = 0; i < count_; ++i)
      if (a >> (count_ - 1 - i) & 1) value = (value * roots_[i]) >> kPowerBits;
    return static_cast<uint64_t>(value);
  }

 private:
  int count_ = 0;
  unsigned __int128 roots_[20];
};

// floor(2^(a/b) * 2^s) for 0 <= a <= b, b a power of two up to 2^20, 0 <= s <= 30. The floor is certified by checking
// that the upper bound has the same one, and the call throws otherwise (for a not in {0, b} the value is irrational).
inline uint64_t floor_pow2(int64_t a, int64_t b, int s) {
  if (a == b) return uint64_t{2} << s;
  const uint64_t value = PowersOfTwo(b).at(a);
  const int drop = kPowerBits - s;
  if (a != 0 && value >> drop != (value + kPowerSlack) >> drop)
    throw std::logic_error("floor_pow2: 62 fraction bits do not decide this constant");
  return value >> drop;
}

// round(2^(a/b) * 2^s): the value is never half-way, so it is floor(2x) + 1 halved.
inline uint64_t round_pow2(int64_t a, int64_t b, int s) { return (floor_pow2(a, b, s + 1) + 1) >> 1; }

// The double nearest to 2^(-1/gamma), for gamma = 2^0 .. 2^15.
constexpr double kInverseStep[16] = {
    0x1.0000000000000p-1, 0x1.6a09e667f3bcdp-1, 0x1.ae89f995ad3adp-1, 0x1.d5818dcfba487p-1,
    0x1.ea4afa2a490dap-1, 0x1.f50765b6e4540p-1, 0x1.fa7c1819e90d8p-1, 0x1.fd3c22b8f71f1p-1,
    0x1.fe9d96b2a23d9p-1, 0x1.ff4eaca4391b6p-1, 0x1.ffa74ea381efcp-1, 0x1.ffd3a565efb65p-1,
    0x1.ffe9d237fe372p-1, 0x1.fff4e8fd40081p-1, 0x1.fffa7476f029dp-1, 0x1.fffd3a398c1bbp-1};

}  // namespace lns
