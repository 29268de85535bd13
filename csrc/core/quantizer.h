// float32 -> code: the exact log code of a float, the scale rule, rounding and the underflow policies.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/exact_pow2.h"
#include "core/format.h"
#include "core/philox.h"

namespace lns {

enum class Rounding : int { nearest = 0, stochastic = 1 };
enum class Underflow : int { clamp = 0, flush = 1, stochastic = 2 };

LNS_HD inline uint32_t float_bits(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}
LNS_HD inline float bits_float(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}
constexpr uint32_t kInfBits = 0x7f800000u;

// |x| = M * 2^(exponent-23) with the 24-bit integer M in [2^23, 2^24), for any finite non-zero float32.
struct Mantissa {
  int exponent;
  uint32_t M;
};
LNS_HD inline Mantissa split_float(uint32_t magnitude_bits) {
  int exponent = static_cast<int>(magnitude_bits >> 23) - 127;
  uint32_t M = magnitude_bits & 0x7fffffu;
  if (exponent == -127) {  // subnormal: shift the leading one up to bit 23
    exponent = -126;
    while (M < 0x800000u) {
      M <<= 1;
      --exponent;
    }
    return {.exponent = exponent, .M = M};
  }
  return {.exponent = exponent, .M = M | 0x800000u};
}

// What a quantizer needs of gamma. Kernels hold pointers into `QuantizerTables` (host) or a device copy of it.
struct Quantizer {
  Format format;
  Rounding rounding;
  Underflow underflow;
  int low_bits;                // mantissa bits below the bucket index
  const uint32_t* thresholds;  // t_j, j = 0..gamma-1
  const int32_t* buckets;      // 2*gamma entries, see QuantizerTables
  const uint32_t* values;      // B_j, j = 0..gamma
  double inverse_step;         // 2^(-1/gamma)
};

// #{j : M > t_j} in one look-up. The mantissa range is cut into 2*gamma buckets, each with at most one threshold
// (thresholds are at least ln2/gamma * 2^23 apart). A bucket's entry adds its count of thresholds below it, at bit
// low_bits+1, to a carry that the mantissa's low bits complete exactly when they are above the bucket's threshold.
LNS_HD inline int thresholds_below(const Quantizer& q, uint32_t M) {
  const uint32_t fraction = M & 0x7fffffu;
  const uint32_t low = fraction & ((1u << q.low_bits) - 1);
  return (static_cast<int32_t>(low) + q.buckets[fraction >> q.low_bits]) >> (q.low_bits + 1);
}

// L(x): the integer nearest to gamma * log2|x|, for a finite non-zero float32 given by its magnitude bits.
LNS_HD inline int log_code(const Quantizer& q, uint32_t magnitude_bits) {
  const Mantissa m = split_float(magnitude_bits);
  return q.format.gamma * m.exponent + thresholds_below(q, m.M);
}

// The lower neighbour's log code, or the upper one's with probability linear in the value between them.
LNS_HD inline int log_code_stochastic(const Quantizer& q, uint32_t magnitude_bits, uint32_t u24) {
  const Mantissa m = split_float(magnitude_bits);
  int j = thresholds_below(q, m.M);  // nearest: the largest j with B_j <= M is this one or the one before
  if (q.values[j] > m.M) --j;
  const uint64_t gap = q.values[j + 1] - q.values[j];
  const bool up = u24 * gap < (uint64_t{m.M - q.values[j]} << 24);
  return q.format.gamma * m.exponent + j + up;
}

// ceil(a / b) for b > 0.
LNS_HD inline int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// The scale for a largest magnitude (as float bits): no code above e_max is needed. NaN if anything was not finite.
LNS_HD inline uint32_t scale_for(const Quantizer& q, uint32_t amax_bits) {
  if (amax_bits >= kInfBits) return kNanBits;
  if (amax_bits == 0) return scale_bits(0);
  const int64_t k = ceil_div(log_code(q, amax_bits) - q.format.e_max(), q.format.gamma);
  return scale_bits(clamp_scale(static_cast<int>(k)));
}

// 2^n as a double; beyond the normal range it sticks to the nearest end, where every result here is 0 or infinite
// in float32 anyway.
LNS_HD inline double pow2(int n) {
  const int clamped = n < -1022 ? -1022 : (n > 1023 ? 1023 : n);
  const uint64_t bits = static_cast<uint64_t>(clamped + 1023) << 52;
  double d;
  memcpy(&d, &bits, sizeof d);
  return d;
}

// Does a value below code 1 become the smallest code? `ratio` is |x| * 2^-k, exact in double.
LNS_HD inline bool survives_underflow(const Quantizer& q, double ratio, uint32_t u24) {
  return u24 * 5.9604644775390625e-08 /* 2^-24 */ < ratio * q.inverse_step;
}

// One float to one code at scale k. `u24` is read by the stochastic policies only.
LNS_HD inline int quantize_one(const Quantizer& q, uint32_t bits, int k, uint32_t u24) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude == 0 || magnitude >= kInfBits) return 0;
  const int L = q.rounding == Rounding::nearest ? log_code(q, magnitude) : log_code_stochastic(q, magnitude, u24);
  int e = L - q.format.gamma * k;
  if (e > q.format.e_max()) e = q.format.e_max();
  if (e < 1) {
    if (q.underflow == Underflow::clamp)
      e = 1;
    else
      e = q.underflow == Underflow::stochastic && survives_underflow(q, bits_float(magnitude) * pow2(-k), u24);
  }
  return q.format.encode(bits >> 31, e);
}

// Owns the tables of one gamma.
struct QuantizerTables {
  std::vector<uint32_t>
      thresholds;                // t_j = floor(2^((2j+1)/(2 gamma)) * 2^23), j = 0..gamma-1, unless others are given
  std::vector<uint32_t> values;  // B_j = round(2^(j/gamma) * 2^23), j = 0..gamma
  std::vector<int32_t> buckets;  // see thresholds_below
  int low_bits;
  double inverse_step;

  // `given`: thresholds of a converter that differs from the spec's, or none. They must leave each bucket at most one.
  explicit QuantizerTables(int gamma, const std::vector<int64_t>& given = {})
      : thresholds(given.begin(), given.end()),
        low_bits(22 - log2_exact(gamma)),
        inverse_step(kInverseStep[log2_exact(gamma)]) {
    check_thresholds(gamma, given);
    for (int j = 0; j < gamma; ++j) {
      if (given.empty()) thresholds.push_back(static_cast<uint32_t>(floor_pow2(2 * j + 1, 2 * gamma, 23)));
      values.push_back(static_cast<uint32_t>(round_pow2(j, gamma, 23)));
    }
    values.push_back(1u << 24);
    int below = 0;
    for (int b = 0; b < 2 * gamma; ++b) {
      const uint32_t start = (1u << 23) + (static_cast<uint32_t>(b) << low_bits);
      const uint32_t size = 1u << low_bits;
      while (below < gamma && thresholds[below] < start) ++below;
      const bool inside = below < gamma && thresholds[below] < start + size;
      const uint32_t threshold = inside ? thresholds[below] - start : size - 1;
      buckets.push_back((below << (low_bits + 1)) + static_cast<int32_t>(2 * size - 1 - threshold));
    }
  }

  Quantizer view(const Format& f, Rounding r, Underflow u) const {
    return {.format = f,
            .rounding = r,
            .underflow = u,
            .low_bits = low_bits,
            .thresholds = thresholds.data(),
            .buckets = buckets.data(),
            .values = values.data(),
            .inverse_step = inverse_step};
  }

 private:
  static void check_thresholds(int gamma, const std::vector<int64_t>& given) {
    const int64_t low = int64_t{1} << 23, high = int64_t{1} << 24, apart = (int64_t{1} << 22) / gamma;
    const auto fail = [](const std::string& what) { throw std::invalid_argument("thresholds must " + what); };
    if (!given.empty() && given.size() != static_cast<size_t>(gamma))
      fail("hold gamma = " + std::to_string(gamma) + " mantissas, got " + std::to_string(given.size()));
    for (size_t j = 0; j < given.size(); ++j) {
      if (given[j] < low || given[j] >= high)
        fail("be mantissas from 2^23 to 2^24 - 1, got " + std::to_string(given[j]));
      if (j > 0 && given[j] - given[j - 1] < apart)
        fail("ascend by at least 2^22 / gamma = " + std::to_string(apart) + ", got " + std::to_string(given[j - 1]) +
             " and " + std::to_string(given[j]));
    }
  }
};

}  // namespace lns
