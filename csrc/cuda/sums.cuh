// How a thread holds its R x kColumns outputs: the running sum of a vector's products, and the accumulator.
#pragma once

#include <type_traits>

#include "core/datapath.h"
#include "cuda/product_table.h"
#include "cuda/shifts.cuh"

namespace lns::cuda {

constexpr int kColumns = 4;  // of a thread

// What becomes of a tile's results: they are written, or kept for join_segments, or only their overflows count.
enum class Use { results, bounded, overflows, segment };

template <int R, typename Body>
__device__ inline void for_each_output(Body body) {
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < kColumns; ++j) body(i, j);
}

// acc * 2^f + Y in one integer.
template <int R, Use use>
struct FusedSums {
  static constexpr int kRows = R;
  static constexpr Sums kSums = Sums::fused;
  static constexpr Use kUse = use;
  int32_t y[R][kColumns];
  int overflows = 0;
  // Use::bounded: a segment's accumulators as if it started with 0, and how low and high a thread's went. From another
  // start the same additions give the same sum, moved, if no bound, moved, leaves the range.
  int32_t lowest, highest;

  __device__ void start(const Datapath&) {
    lowest = highest = 0;
    for_each_output<R>([&](int i, int j) { y[i][j] = 0; });
  }
  __device__ void resume(const Datapath& d, int i, int j, int32_t acc) { y[i][j] = acc << d.fraction_bits(); }
  __device__ void add(int i, int j, int32_t product) { y[i][j] += product; }
  __device__ void flush(const Datapath&, int) {}
  __device__ void close(const Datapath& d) {
    const Accumulator<int32_t> a(d);
    if (d.overflow == Overflow::saturate)
      each([&](int32_t acc) { return a.saturated(acc); }, a);
    else
      each([&](int32_t acc) { return a.wrapped(acc); }, a);
  }
  __device__ int32_t read(const Datapath& d, int i, int j) const { return y[i][j] >> d.fraction_bits(); }

 private:
  template <typename Narrow>
  __device__ void each(Narrow narrow, const Accumulator<int32_t>& a) {
    for_each_output<R>([&](int i, int j) {
      const int32_t acc = a.aligned(y[i][j]);
      if (use == Use::overflows) overflows += a.overflows(acc);
      if (use == Use::bounded) lowest = min(lowest, acc), highest = max(highest, acc);
      y[i][j] = a.state(narrow(acc));
    });
  }
};
constexpr int kBoundedRows = 16;

// Of a saturating accumulator; of a wider one, sums that do not leave the range do not fit 32 bits.
constexpr int kMostSegmentBits = 30;

// What a segment of K does to any accumulator x it may start with. A saturating accumulation is x -> clamp(x + z, low,
// high); such functions compose to one of the same form, clamp(x + sum, from_low, from_high), where from_low and
// from_high are what the ends of the range become. A sum that leaves twice the range means that all x have met: it may
// be clamped.
template <int R, bool Shifted>
struct SegmentSums {
  static constexpr int kRows = R;
  static constexpr Sums kSums = Sums::fused;
  static constexpr Use kUse = Use::segment;
  int32_t y[R][kColumns], sum[R][kColumns], from_low[R][kColumns], from_high[R][kColumns];
  int overflows = 0;
  std::conditional_t<Shifted, ThreadShifts<R>, NoShifts> shifts;

  __device__ void start(const Datapath& d) {
    const Accumulator<int32_t> a(d);
    for_each_output<R>(
        [&](int i, int j) { y[i][j] = sum[i][j] = 0, from_low[i][j] = a.low, from_high[i][j] = a.high; });
  }
  __device__ void add(int i, int j, int32_t product) { y[i][j] += product; }
  __device__ void flush(const Datapath&, int) {}
  __device__ void close(const Datapath& d) {
    const Accumulator<int32_t> a(d);
    const int32_t most = 1 << min(a.acc_bits + 1, 30);
    for_each_output<R>([&](int i, int j) {
      const int32_t z = Shifted ? a.shifted(y[i][j], shifts.at(i, j)) : a.aligned(y[i][j]);
      sum[i][j] = max(-most, min(most, sum[i][j] + z));
      from_low[i][j] = a.saturated(from_low[i][j] + z);
      from_high[i][j] = a.saturated(from_high[i][j] + z);
      y[i][j] = 0;
    });
  }
};

// What Accumulator::shifted does, of Y in a double below 2^50.
struct Float64Alignment {
  int fraction_bits;
  double half;

  explicit __device__ Float64Alignment(const Datapath& d)
      : fraction_bits(d.fraction_bits()), half(d.rounding == Alignment::nearest ? 0.5 : 0) {}
  // Of the sum with a half only the floor counts, which rounding downwards leaves; beside 1.5 * 2^52 a double has no
  // smaller units than 1.
  __device__ int64_t shifted(double y, int shift) const {
    const double aligned = y * __hiloint2double((1023 - fraction_bits - shift) << 20, 0);
    const double beside = __hiloint2double((1023 + 52) << 20 | 1 << 19, 0);
    const double found = __dadd_rd(__dadd_rd(aligned, half), beside);
    return __double_as_longlong(found) - __double_as_longlong(beside);
  }
};

// Block scales: acc and Y apart, and Y whole until it is aligned by its shifts. Y: 32 bits; a double, to which a
// product is the upper half of one; or 64 bits, for any datapath. Next: what holds acc and an aligned Y together.
template <int R, Use use, typename Y = int32_t, typename Next = int64_t>
struct ShiftedSums {
  static constexpr int kRows = R;
  static constexpr bool kDouble = std::is_same_v<Y, double>;
  static constexpr Sums kSums = kDouble ? Sums::float64 : sizeof(Y) == sizeof(int64_t) ? Sums::direct : Sums::fused;
  static constexpr Use kUse = use;
  Y y[R][kColumns];
  int32_t acc[R][kColumns];
  ThreadShifts<R> shifts;
  int overflows = 0;
  int32_t lowest, highest;  // as of FusedSums

  __device__ void start(const Datapath&) {
    lowest = highest = 0;
    for_each_output<R>([&](int i, int j) { acc[i][j] = 0, y[i][j] = 0; });
  }
  __device__ void resume(const Datapath&, int i, int j, int32_t from) { acc[i][j] = from; }
  template <typename Product>
  __device__ void add(int i, int j, Product product) {
    if constexpr (kDouble)
      y[i][j] += __hiloint2double(product, 0);
    else
      y[i][j] += product;
  }
  __device__ void flush(const Datapath&, int) {}
  __device__ void close(const Datapath& d) {
    if (d.overflow == Overflow::saturate)
      d.rounding == Alignment::nearest ? close<Overflow::saturate, Alignment::nearest>(d)
                                       : close<Overflow::saturate, Alignment::truncate>(d);
    else
      d.rounding == Alignment::nearest ? close<Overflow::wrap, Alignment::nearest>(d)
                                       : close<Overflow::wrap, Alignment::truncate>(d);
  }
  __device__ int32_t read(const Datapath&, int i, int j) const { return acc[i][j]; }

 private:
  // Policies that are known leave no branch for an output.
  template <Overflow overflow, Alignment rounding>
  __device__ void close(Datapath d) {
    d.overflow = overflow, d.rounding = rounding;
    const std::conditional_t<kDouble, Float64Alignment, Accumulator<Y>> alignment(d);
    const Accumulator<Next> a(d);
    for_each_output<R>([&](int i, int j) {
      const Next sum = Next{acc[i][j]} + alignment.shifted(y[i][j], shifts.at(i, j));
      if (use == Use::overflows) overflows += a.overflows(sum);
      if constexpr (use == Use::bounded) lowest = min(lowest, sum), highest = max(highest, sum);
      acc[i][j] = static_cast<int32_t>(a.narrow(sum)), y[i][j] = 0;
    });
  }
};

// acc and Y apart, 32 bits each. Y takes a few lanes; then what is whole in units of acc moves over.
template <int R>
struct WideSums {
  static constexpr int kRows = R;
  static constexpr Sums kSums = Sums::wide;
  static constexpr Use kUse = Use::results;
  int32_t acc[R][kColumns], y[R][kColumns];
  int lanes;  // in y
  int overflows = 0;

  __device__ void start(const Datapath&) {
    lanes = 0;
    for_each_output<R>([&](int i, int j) { acc[i][j] = y[i][j] = 0; });
  }
  __device__ void add(int i, int j, int32_t product) { y[i][j] += product; }
  __device__ void flush(const Datapath& d, int short_lanes) {
    lanes += kUnroll;
    if (lanes != short_lanes) return;
    lanes = 0;
    const int f = d.fraction_bits();
    for_each_output<R>([&](int i, int j) { acc[i][j] += y[i][j] >> f, y[i][j] &= (1 << f) - 1; });
  }
  __device__ void close(const Datapath& d) {
    lanes = 0;
    const Accumulator<int32_t> a(d);
    for_each_output<R>([&](int i, int j) {
      const int32_t sum = acc[i][j] + a.aligned(y[i][j]);
      overflows += a.overflows(sum);
      acc[i][j] = a.narrow(sum), y[i][j] = 0;
    });
  }
  __device__ int32_t read(const Datapath&, int i, int j) const { return acc[i][j]; }
};

// acc * 2^f + Y in a double, which holds every such sum exactly; a product is the upper half of one.
template <int R>
struct Float64Sums {
  static constexpr int kRows = R;
  static constexpr Sums kSums = Sums::float64;
  static constexpr Use kUse = Use::results;
  double state[R][kColumns];
  int overflows = 0;

  __device__ void start(const Datapath&) {
    for_each_output<R>([&](int i, int j) { state[i][j] = 0; });
  }
  __device__ void add(int i, int j, int32_t product) { state[i][j] += __hiloint2double(product, 0); }
  __device__ void flush(const Datapath&, int) {}
  // What Accumulator does, in doubles: conversions are slow.
  __device__ void close(const Datapath& d) {
    const Accumulator<int64_t> a(d);
    const double unit = static_cast<double>(int64_t{1} << a.fraction_bits), half = static_cast<double>(a.half);
    const double low = static_cast<double>(a.low) * unit, high = static_cast<double>(a.high) * unit;
    const auto each = [&](auto narrow) {
      for_each_output<R>([&](int i, int j) {
        const double acc = floor_to(a.fraction_bits, state[i][j] + half);
        overflows += acc < low || acc > high;
        state[i][j] = narrow(acc);
      });
    };
    if (d.overflow == Overflow::saturate)
      each([&](double acc) { return acc < low ? low : (acc > high ? high : acc); });
    else
      each([&](double acc) { return acc - floor_to(a.fraction_bits + a.acc_bits, acc - low); });
  }
  __device__ int32_t read(const Datapath& d, int i, int j) const {
    return Accumulator<int64_t>(d).read(static_cast<int64_t>(state[i][j]));
  }

 private:
  // The next multiple of 2^bits from x downwards: beside 1.5 * 2^(52 + bits) a double has no smaller units.
  __device__ static double floor_to(int bits, double x) {
    const double beside = __hiloint2double((1023 + 52 + bits) << 20 | 1 << 19, 0);
    return __dadd_rd(x, beside) - beside;
  }
};

// acc * 2^f + Y in one 64-bit integer.
template <int R>
struct DirectSums {
  static constexpr int kRows = R;
  static constexpr Sums kSums = Sums::direct;
  static constexpr Use kUse = Use::results;
  int64_t state[R][kColumns];
  int overflows = 0;

  __device__ void start(const Datapath&) {
    for_each_output<R>([&](int i, int j) { state[i][j] = 0; });
  }
  __device__ void add(int i, int j, int64_t product) { state[i][j] += product; }
  __device__ void flush(const Datapath&, int) {}
  __device__ void close(const Datapath& d) {
    const Accumulator<int64_t> a(d);
    for_each_output<R>([&](int i, int j) {
      overflows += a.overflows(a.aligned(state[i][j]));
      state[i][j] = a.close(state[i][j]);
    });
  }
  __device__ int32_t read(const Datapath& d, int i, int j) const { return Accumulator<int64_t>(d).read(state[i][j]); }
};

}  // namespace lns::cuda
