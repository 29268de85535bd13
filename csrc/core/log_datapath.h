// The processing element that adds logarithms: its correction tables, products, sums and results (spec section 7).
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/datapath.h"

namespace lns {

enum class LogOrder : int { sequential = 0, tree = 1 };
enum class LogTableKind : int { exact = 0, coarse = 1, shift = 2, segments = 3, lists = 4 };

struct LogDatapath {
  Format format;
  int vector_size;
  int acc_bits;
  int acc_gamma;  // steps of the accumulator per octave
  int offset;     // what is taken off a product's exponent, in these steps
  LogOrder order;
  ProductUnderflow underflow;  // of products and sums
  LogTableKind tables;
  int drop;                          // coarse: low bits of the distance that are not looked at
  std::vector<int64_t> plus, minus;  // lists: entries; segments: distance and entry in turn

  int e_max() const { return (1 << (acc_bits - 2)) - 1; }
  int e_min() const { return -e_max(); }
  int steps_per_code() const { return acc_gamma / format.gamma; }
  int product(int exponent_sum) const { return exponent_sum * steps_per_code() - offset; }
  // How many lanes are added to each other before the accumulator sees them.
  int lanes_together() const { return order == LogOrder::tree ? vector_size : 1; }
};

// ---- Correction tables

// By distance; minus[0] is not read. Behind the end entries are 0.
struct LogTables {
  std::vector<int64_t> plus, minus;
};

constexpr int kFinestLog = 1 << 13;            // most steps per octave
constexpr int64_t kMostLogEntries = 1 << 17;   // of a table that is given; what is computed ends before
constexpr int64_t kLargestLogEntry = 1 << 20;  // above all that are given
constexpr int64_t kProductSteps = 1 << 23;     // most steps that a product's exponents span

// The nearest integers to G log2(1 + 2^(-d/G)) and -G log2(1 - 2^(-d/G)). Both fall with d: asked for ascending
// distances, each walks down from its last result. Powers of two have 62 fraction bits; a comparison that these do not
// decide throws.
class ExactCorrections {
 public:
  explicit ExactCorrections(int G) : g_(G), half_steps_(2 * G), plus_(G), minus_(G * (log2_exact(G) + 2)) {}

  int64_t plus(int64_t d) {
    const Fixed x = kOne + power(-2 * d);
    while (plus_ > 0 && below(x, power(2 * plus_ - 1))) --plus_;
    return plus_;
  }
  int64_t minus(int64_t d) {
    const Fixed x = kOne - power(-2 * d);
    while (minus_ > 0 && below(power(1 - 2 * minus_), x)) --minus_;
    return minus_;
  }

 private:
  using Fixed = int64_t;
  static constexpr Fixed kOne = Fixed{1} << kPowerBits;

  // 2^(half_steps / (2 G)), below 2.
  Fixed power(int64_t half_steps) const {
    const int64_t octaves = half_steps >> log2_exact(2 * g_), rest = half_steps & (2 * g_ - 1);
    return octaves > -kPowerBits ? static_cast<Fixed>(half_steps_.at(rest) >> -octaves) : 0;
  }
  static bool below(Fixed a, Fixed b) {
    constexpr Fixed slack = 2 * kPowerSlack;
    if (a - b < slack && b - a < slack)
      throw std::logic_error("62 fraction bits do not decide an entry of a correction table");
    return a < b;
  }

  int g_;
  PowersOfTwo half_steps_;
  int64_t plus_, minus_;
};

// The floor of straight lines between points (distance, entry in turn), at `distance`; 0 behind the last.
inline int64_t on_segments(const std::vector<int64_t>& points, int64_t distance) {
  for (size_t i = 0; i + 3 < points.size(); i += 2) {
    const int64_t d0 = points[i], y0 = points[i + 1], d1 = points[i + 2], y1 = points[i + 3];
    if (distance < d0 || distance > d1) continue;
    const int64_t rise = (distance - d0) * (y1 - y0), run = d1 - d0;
    return y0 + (rise >= 0 ? rise / run : -((-rise + run - 1) / run));
  }
  return 0;
}

inline LogTables log_tables(const LogDatapath& d) {
  const int64_t G = d.acc_gamma;
  LogTables t;
  // Falling corrections, from `first` to the last that is not 0.
  const auto fill = [](std::vector<int64_t>& to, int64_t first, auto correction) {
    to.assign(first, 0);
    for (int64_t distance = first;; ++distance) {
      const int64_t entry = correction(distance);
      if (entry == 0) return;
      to.push_back(entry);
    }
  };
  switch (d.tables) {
    case LogTableKind::exact: {
      ExactCorrections exact(d.acc_gamma);
      fill(t.plus, 1, [&](int64_t distance) { return exact.plus(distance); });
      fill(t.minus, 1, [&](int64_t distance) { return exact.minus(distance); });
      t.plus[0] = G;
      break;
    }
    case LogTableKind::coarse: {
      ExactCorrections exact(d.acc_gamma);
      const auto middle = [&](int64_t distance) { return (distance >> d.drop << d.drop) + (1 << (d.drop - 1)); };
      fill(t.plus, 0, [&](int64_t distance) { return exact.plus(middle(distance)); });
      fill(t.minus, 1, [&](int64_t distance) { return exact.minus(middle(distance)); });
      break;
    }
    case LogTableKind::shift:
      fill(t.plus, 0, [&](int64_t distance) { return G >> std::min<int64_t>(distance / G, 62); });
      fill(t.minus, 1, [&](int64_t distance) { return 3 * G / 2 >> std::min<int64_t>(distance / G, 62); });
      break;
    case LogTableKind::segments:
      for (auto [table, points] : {std::pair(&t.plus, &d.plus), {&t.minus, &d.minus}})
        for (int64_t distance = 0; distance <= (*points)[points->size() - 2]; ++distance)
          table->push_back(on_segments(*points, distance));
      break;
    case LogTableKind::lists:
      t = {.plus = d.plus, .minus = d.minus};
      break;
  }
  if (!t.minus.empty()) t.minus[0] = 0;
  for (std::vector<int64_t>* table : {&t.plus, &t.minus})
    while (!table->empty() && table->back() == 0) table->pop_back();
  return t;
}

// ---- Numbers, as words: 4 E + 1 if negative. Zero is any word below kLogPresent.
//
// The difference of two words tells their distance and whether their signs differ, so one table gives what is added to
// the larger one.

constexpr int32_t kLogZero = -(1 << 28), kLogPresent = -(1 << 27);

// What a sum adds to the larger of two words, by their difference up to the last entry, which stands for all behind.
inline std::vector<int32_t> log_steps(const LogTables& t) {
  const auto at = [](const std::vector<int64_t>& table, size_t d) { return d < table.size() ? table[d] : 0; };
  std::vector<int32_t> steps;
  for (size_t d = 0; d < std::max<size_t>({t.plus.size(), t.minus.size(), 1}); ++d) {
    steps.push_back(static_cast<int32_t>(4 * at(t.plus, d)));
    steps.push_back(d == 0 ? kLogZero : static_cast<int32_t>(-4 * at(t.minus, d)));  // the negative one is larger
    steps.push_back(0);                                                              // no difference
    steps.push_back(static_cast<int32_t>(-4 * at(t.minus, d + 1)));                  // the positive one is
  }
  return steps;
}

// The words of operands: a product is the sum of a left and a right one, without bit 1.
struct LogOperands {
  int32_t scale, right_shift;

  explicit LogOperands(const LogDatapath& d) : scale(4 * d.steps_per_code()), right_shift(4 * d.offset) {}
  LNS_HD int32_t left(bool negative, int e) const { return e == 0 ? kLogZero : e * scale + negative; }
  LNS_HD int32_t right(bool negative, int e) const { return e == 0 ? kLogZero : e * scale - right_shift + negative; }
};
LNS_HD inline int32_t log_product(int32_t left, int32_t right) { return (left + right) & ~2; }

// What the accumulator can hold.
struct LogRange {
  int32_t low, high;  // words
  bool flush;         // what lies below becomes zero, else the least number

  explicit LogRange(const LogDatapath& d)
      : low(4 * d.e_min()), high(4 * d.e_max() + 1), flush(d.underflow == ProductUnderflow::flush) {}

  LNS_HD bool flushes(int32_t w) const { return flush && w >= kLogPresent && w < low; }
  LNS_HD bool saturates(int32_t w) const { return w > high || (!flush && w >= kLogPresent && w < low); }
  LNS_HD int32_t keep(int32_t w) const {
    if (w < kLogPresent || (flush && w < low)) return kLogZero;
    const int32_t sign = w & 1;
    return w < low ? low + sign : (w > high ? high - 1 + sign : w);
  }
  LNS_HD int32_t accumulator(int32_t w) const {
    if (w < kLogPresent) return 0;
    const int32_t n = (w - low) / 4 + 1;
    return w & 1 ? -n : n;
  }
};

// Does every product of non-zero operands lie within the accumulator's range?
inline bool log_products_fit(const LogDatapath& d) {
  return d.product(2) >= d.e_min() && d.product(2 * d.format.e_max()) <= d.e_max();
}

// What an accumulator, 0 or +-(E - E_min + 1), is worth in units of 2^(k_a + k_b).
struct LogValues {
  int32_t least;  // the exponent of 1, in steps
  int log2_g;

  explicit LogValues(const LogDatapath& d) : least(d.e_min() + d.offset), log2_g(log2_exact(d.acc_gamma)) {}
  // `mantissas` are the B_j of gamma G (spec section 2).
  LNS_HD double operator()(int32_t acc, const int32_t* mantissas) const {
    if (acc == 0) return 0;
    const int32_t e = least + (acc < 0 ? -acc : acc) - 1, octaves = e >> log2_g;
    const double value = mantissas[e & ((1 << log2_g) - 1)] * 0x1p-23;
    return (acc < 0 ? -value : value) * pow2(octaves < -600 ? -600 : (octaves > 600 ? 600 : octaves));
  }
};
inline std::vector<int32_t> log_mantissas(const LogDatapath& d) {
  std::vector<int32_t> mantissas;
  for (int j = 0; j < d.acc_gamma; ++j) mantissas.push_back(static_cast<int32_t>(round_pow2(j, d.acc_gamma, 23)));
  return mantissas;
}

inline void validate(const LogDatapath& d) {
  validate(d.format);
  const auto fail = [](const std::string& what) { throw std::invalid_argument(what); };
  const auto number = [](int64_t n) { return std::to_string(n); };
  if (d.vector_size < 1 || d.vector_size > 4096)
    fail("vector_size must be between 1 and 4096, got " + number(d.vector_size));
  if (d.acc_bits < 4 || d.acc_bits > 20) fail("acc_bits must be between 4 and 20, got " + number(d.acc_bits));
  if (!is_power_of_two(d.acc_gamma) || d.acc_gamma < d.format.gamma || d.acc_gamma > kFinestLog)
    fail("acc_gamma must be a power of two from the operands' gamma " + number(d.format.gamma) + " to " +
         number(kFinestLog) + ", got " + number(d.acc_gamma));
  const int64_t span = int64_t{2} * d.format.e_max() * d.steps_per_code();
  if (span > kProductSteps)
    fail("products span " + number(span) +
         " steps of the accumulator, more than 2^23: a smaller acc_gamma, or a format " + "of fewer bits, spans fewer");
  if (2 * int64_t{d.steps_per_code()} - d.offset > d.e_max() || span - d.offset < d.e_min())
    fail("the accumulator cannot hold one product: these have E from " +
         number(2 * int64_t{d.steps_per_code()} - d.offset) + " to " + number(span - d.offset) + ", it holds " +
         number(d.e_min()) + " to " + number(d.e_max()));
  if (d.tables == LogTableKind::coarse && (d.drop < 1 || d.drop > 16))
    fail("drop must be between 1 and 16, got " + number(d.drop));
  const bool points = d.tables == LogTableKind::segments, given = points || d.tables == LogTableKind::lists;
  for (const std::vector<int64_t>* table : {&d.plus, &d.minus}) {
    if (table->empty() == given || static_cast<int64_t>(table->size()) > 2 * kMostLogEntries)
      fail("tables that are given need entries, up to " + number(kMostLogEntries) + ", and no others have any");
    for (const int64_t n : *table)
      if (n < 0 || n >= kLargestLogEntry) fail("a table's numbers must be from 0 to 2^20 - 1, got " + number(n));
    if (!points) continue;
    if (table->size() < 4 || table->size() % 2 != 0 || table->front() > 1)
      fail("segments must be two points or more, the first at distance 0 or 1");
    for (size_t i = 2; i < table->size(); i += 2)
      if ((*table)[i] <= (*table)[i - 2] || (*table)[i] >= kMostLogEntries)
        fail("distances of segments must ascend, up to " + number(kMostLogEntries - 1));
  }
}

}  // namespace lns
