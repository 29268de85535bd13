// The processing element: what one product contributes, how a vector is aligned, accumulated and read out.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/quantizer.h"

namespace lns {

enum class Alignment : int { truncate = 0, nearest = 1 };
enum class Overflow : int { saturate = 0, wrap = 1 };
enum class ProductUnderflow : int { flush = 0, saturate = 1 };
enum class Bins : int { joint = 0, by_sign = 1 };  // by_sign: positive and negative products apart, as magnitudes

constexpr int kGivenConstants = 64;  // most LUT constants that may be given

// The fields behind `overflow` describe PEs that differ from the paper's; their defaults have no effect.
struct Datapath {
  Format format;
  int vector_size;
  int lut_entries;
  int lut_bits;
  int acc_bits;
  int acc_lsb;  // log2 of the accumulator's unit, in units of 2^(k_a + k_b)
  Alignment rounding;
  Overflow overflow;
  int product_offset = 0;                                        // what the lanes' adders take off e_a + e_b
  int product_low = INT32_MIN, product_high = INT32_MAX;         // the exponents that they can give
  ProductUnderflow product_underflow = ProductUnderflow::flush;  // what becomes of a product below product_low
  int bin_bits = 0;                                              // of a bin's sum over a vector; 0: as many as it needs
  Overflow bin_overflow = Overflow::saturate;
  Bins bins = Bins::joint;
  bool keep_fraction = false;  // Y is added as it is, not aligned
  int offset_octaves = 0;      // 2^(product_offset / gamma) is offset_mantissa * 2^(offset_octaves - 23)
  int32_t offset_mantissa = 1 << 23;
  int given_constants = 0;  // 0: the spec's, else lut_entries
  int32_t constants[kGivenConstants] = {};

  // The bits of Y below the accumulator's unit.
  LNS_HD int fraction_bits() const { return keep_fraction ? 0 : lut_bits - 1; }
  // log2 of the unit of lanes and bins.
  LNS_HD int lane_lsb() const { return acc_lsb + (keep_fraction ? lut_bits - 1 : 0); }
  LNS_HD int max_product_code() const { return 2 * format.e_max(); }
  // What the lane's adder gives for a sum of exponents; none where it is flushed to zero.
  std::optional<int> product_exponent(int sum) const {
    const int p = sum - product_offset;
    if (p > product_high) return product_high;
    if (p >= product_low) return p;
    return product_underflow == ProductUnderflow::saturate ? std::optional(product_low) : std::nullopt;
  }
  // Sums of exponents below this vanish: their shifted one lies under the lanes' LSB, or they are flushed.
  LNS_HD int64_t first_visible_product() const {
    const int64_t visible = int64_t{format.gamma} * lane_lsb();
    if (product_high < visible) return int64_t{max_product_code()} + 1;
    if (product_underflow == ProductUnderflow::flush)
      return product_offset + (product_low > visible ? product_low : visible);
    return product_low >= visible ? 0 : product_offset + visible;
  }
};

inline int default_acc_lsb(const Format& f, int acc_bits, int headroom_bits, int product_offset) {
  return static_cast<int>(ceil_div(2 * f.e_max() - product_offset, f.gamma)) + headroom_bits - (acc_bits - 1);
}

// C_j = round(2^(j/n) * 2^f), the constants of the bins, unless others are given.
inline std::vector<int64_t> lut_constants(const Datapath& d) {
  if (d.given_constants > 0) return {d.constants, d.constants + d.given_constants};
  std::vector<int64_t> c;
  for (int j = 0; j < d.lut_entries; ++j)
    c.push_back(static_cast<int64_t>(round_pow2(j, d.lut_entries, d.lut_bits - 1)));
  return c;
}

// What a lane adds to which bin, for a sum of exponents e_a + e_b.
struct LaneTable {
  std::vector<int64_t> ones;  // the shifted one t, in units of the lanes
  std::vector<int> bins;
};

// For e_a + e_b = 0 .. 2*e_max; 0 and 1 belong to zero operands and are 0. Throws where a vector's Y could leave 63
// bits.
inline LaneTable lane_table(const Datapath& d) {
  const int g = d.format.gamma, per_bin = g / d.lut_entries;
  const std::vector<int64_t> constants = lut_constants(d);
  LaneTable table = {.ones = std::vector<int64_t>(d.max_product_code() + 1),
                     .bins = std::vector<int>(d.max_product_code() + 1)};
  const __int128 room =
      (static_cast<__int128>(1) << 62) - (static_cast<__int128>(1) << (d.fraction_bits() + d.acc_bits));
  for (int p = 2; p <= d.max_product_code(); ++p) {
    const std::optional<int> exponent = d.product_exponent(p);
    if (!exponent) continue;
    const int q = *exponent >> log2_exact(g), r = *exponent & (g - 1);  // rounded down, below zero, too
    const int one = g + r % per_bin;                                    // g + r_L, in units of 1/g
    const int shift = q - log2_exact(g) - d.lane_lsb();                 // the lane shifter, and the lanes' unit
    __int128 t = 0;
    if (shift >= 0)
      t = shift < 64 ? static_cast<__int128>(one) << shift : room;
    else if (shift > -32)
      t = one >> -shift;
    if (t * constants[r / per_bin] * d.vector_size >= room)
      throw std::invalid_argument("acc_lsb = " + std::to_string(d.acc_lsb) +
                                  " is too low: a vector of the largest products does not fit 62 bits");
    table.ones[p] = static_cast<int64_t>(t);
    table.bins[p] = r / per_bin;
  }
  return table;
}

// T[p] = C[bin] * t: the weight of a product in Y. Within a vector everything is linear while bins are exact, so
// Y = sum of +-T[p] (spec section 3, note on linearity).
inline std::vector<int64_t> product_table(const Datapath& d) {
  LaneTable lanes = lane_table(d);
  const std::vector<int64_t> constants = lut_constants(d);
  for (size_t p = 0; p < lanes.ones.size(); ++p) lanes.ones[p] *= constants[lanes.bins[p]];
  return lanes.ones;
}

// A magnitude in so many bits.
LNS_HD inline int64_t magnitude_in_bits(int64_t x, int bits, Overflow overflow) {
  const int64_t high = (int64_t{1} << bits) - 1;
  return overflow == Overflow::saturate ? (x > high ? high : x) : x & high;
}

// A number in so many bits of two's complement.
LNS_HD inline int64_t in_bits(int64_t x, int bits, Overflow overflow) {
  const int64_t high = (int64_t{1} << (bits - 1)) - 1, low = -high - 1;
  if (overflow == Overflow::saturate) return x < low ? low : (x > high ? high : x);
  return static_cast<int64_t>(static_cast<uint64_t>(x) << (64 - bits)) >> (64 - bits);
}

inline void validate(const Datapath& d) {
  validate(d.format);
  if (d.vector_size < 1 || d.vector_size > 4096)
    throw std::invalid_argument("vector_size must be between 1 and 4096, got " + std::to_string(d.vector_size));
  if (!is_power_of_two(d.lut_entries) || d.lut_entries > d.format.gamma)
    throw std::invalid_argument("lut_entries must be a power of two from 1 to gamma = " +
                                std::to_string(d.format.gamma) + ", got " + std::to_string(d.lut_entries));
  if (d.lut_bits < 2 || d.lut_bits > 24)
    throw std::invalid_argument("lut_bits must be between 2 and 24, got " + std::to_string(d.lut_bits));
  if (d.acc_bits < 4 || d.acc_bits > 32)
    throw std::invalid_argument("acc_bits must be between 4 and 32, got " + std::to_string(d.acc_bits));
  if (d.acc_lsb < -(1 << 17) || d.acc_lsb > (1 << 17))
    throw std::invalid_argument("acc_lsb must be between -131072 and 131072, got " + std::to_string(d.acc_lsb));
  if (d.product_offset < -d.max_product_code() || d.product_offset > d.max_product_code())
    throw std::invalid_argument("product_offset must be between -2 * e_max and 2 * e_max = " +
                                std::to_string(d.max_product_code()) + ", got " + std::to_string(d.product_offset));
  if (d.product_high < d.product_low)
    throw std::invalid_argument("product_range must be two exponents, the lower first, got " +
                                std::to_string(d.product_low) + " and " + std::to_string(d.product_high));
  if (d.bin_bits != 0 && (d.bin_bits < 2 || d.bin_bits > 62))
    throw std::invalid_argument("bin_bits must be between 2 and 62, got " + std::to_string(d.bin_bits));
  if (d.bins == Bins::by_sign && d.bin_bits == 0)
    throw std::invalid_argument(
        "bins of their own for either sign differ only where they overflow: they need bin_bits");
  if (d.keep_fraction && d.rounding != Alignment::truncate)
    throw std::invalid_argument("with keep_fraction nothing is rounded: rounding must be truncate");
  if (d.given_constants != 0 && d.given_constants != d.lut_entries)
    throw std::invalid_argument("lut_constants must hold lut_entries = " + std::to_string(d.lut_entries) +
                                " integers, got " + std::to_string(d.given_constants));
  for (int j = 0; j < d.given_constants; ++j)
    if (d.constants[j] < 1 || d.constants[j] >> d.lut_bits)
      throw std::invalid_argument(
          "lut_constants must be between 1 and 2^lut_bits - 1 = " + std::to_string((int64_t{1} << d.lut_bits) - 1) +
          ", got " + std::to_string(d.constants[j]));
  for (const int64_t c : lut_constants(d))
    if (c >> d.lut_bits)
      throw std::invalid_argument("lut_bits = " + std::to_string(d.lut_bits) + " cannot hold the " +
                                  std::to_string(d.lut_entries) + " constants of lut_entries: the largest rounds to " +
                                  std::to_string(c) + "; use more lut_bits or fewer lut_entries");
  product_table(d);
}

// The accumulator between vectors, and the running sum within one, as one integer: state = acc * 2^f + Y.
// Closing a vector aligns Y, adds it to acc and keeps acc within acc_bits.
template <typename State>
struct Accumulator {
  int fraction_bits;
  State half;       // added before the alignment shift: 0 truncates, 2^(f-1) rounds to nearest
  State low, high;  // the range of acc
  int acc_bits;
  Overflow overflow;

  explicit LNS_HD Accumulator(const Datapath& d)
      : fraction_bits(d.fraction_bits()),
        half(d.rounding == Alignment::nearest ? State{1} << (d.fraction_bits() - 1) : State{0}),
        low(-(State{1} << (d.acc_bits - 1))),
        high((State{1} << (d.acc_bits - 1)) - 1),
        acc_bits(d.acc_bits),
        overflow(d.overflow) {}

  // The aligned sum before it meets the width of the accumulator.
  LNS_HD State aligned(State state) const { return (state + half) >> fraction_bits; }
  LNS_HD bool overflows(State acc) const { return acc < low || acc > high; }
  LNS_HD State saturated(State acc) const {
    const State most = acc < high ? acc : high;  // a minimum and a maximum, an instruction each
    return most > low ? most : low;
  }
  LNS_HD State wrapped(State acc) const {
    const int drop = static_cast<int>(8 * sizeof(State)) - acc_bits;
    using Unsigned = std::make_unsigned_t<State>;
    return static_cast<State>(static_cast<Unsigned>(acc) << drop) >> drop;
  }
  // A vector's sum in units of the accumulator, where its operands' block scales lie `shift` octaves under their
  // tensors'.
  LNS_HD State shifted(State y, int shift) const {
    constexpr int kMost = 8 * static_cast<int>(sizeof(State)) - 1;
    const int round = half != 0, n = fraction_bits + shift - round;  // to nearest: halves are left, then dropped
    return ((y >> (n < kMost ? n : kMost)) + round) >> round;
  }
  LNS_HD State narrow(State acc) const { return overflow == Overflow::saturate ? saturated(acc) : wrapped(acc); }
  // Of an accumulator within its bits.
  LNS_HD State state(State acc) const { return acc * (State{1} << fraction_bits); }
  LNS_HD State close(State state) const { return this->state(narrow(aligned(state))); }
  LNS_HD int32_t read(State closed) const { return static_cast<int32_t>(closed >> fraction_bits); }
};

// Does state = acc * 2^f + Y always fit 32 bits? The table's largest entry bounds a lane.
inline bool fits_int32(const Datapath& d, const std::vector<int64_t>& table) {
  int64_t largest = 0;
  for (const int64_t t : table) largest = t > largest ? t : largest;
  // From below, -2^(f + acc_bits - 1) - Y is the least; from above, acc ends a unit of 2^f earlier, which leaves room
  // for the half that rounding adds.
  return static_cast<__int128>(largest) * d.vector_size +
             (static_cast<__int128>(1) << (d.fraction_bits() + d.acc_bits - 1)) <=
         static_cast<__int128>(1) << 31;
}

// A result is acc * 2^(acc_lsb + k_a + k_b), rounded once to float32. Each factor is a power of two and so are their
// products, exactly, in double; NaN if an operand's scale is. acc_lsb beyond +-600 gives 0 or infinity anyway.
// What product_offset took off is put back.
LNS_HD inline double unit_factor(const Datapath& d) {
  const int octaves = d.acc_lsb + d.offset_octaves;
  return pow2(octaves < -600 ? -600 : (octaves > 600 ? 600 : octaves)) * (d.offset_mantissa * 0x1p-23);
}
LNS_HD inline double scale_factor(uint32_t scale) {
  return scale_is_nan(scale) ? static_cast<double>(bits_float(kNanBits)) : pow2(scale_exponent(scale));
}
LNS_HD inline float read_out(int32_t acc, double factor) { return static_cast<float>(acc * factor); }

}  // namespace lns
