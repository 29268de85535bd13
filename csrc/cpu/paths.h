// The ways from a tile of lanes to accumulators: row tables, row tables in two planes, look-ups.
#pragma once

#include "cpu/kernels.h"
#include "cpu/scratch.h"

namespace lns::cpu {

// All run a vector of lanes against a group of 16 columns behind one shape: the lane type, how many lanes to
// take at once, what to note of a whole tile, how to prepare lanes of the columns, add them to a group's sums, and close
// the vector. Each path keeps its sums and accumulators: state[group][row][column].
class RowPath {
 public:
  using Lane = uint8_t;
  static constexpr int kDepth = kRowDepth;

  RowPath(const Kernels& kernel, const Datapath& d, const SignedProducts& products)
      : kernel_(kernel), accumulator_(d), products_(products) {}

  void start(int64_t rows, int64_t groups) { state_.clear(rows * groups * kColumns); }
  void see(const Lane* lanes, int64_t run, int64_t runs, int64_t pitch) { range_ = range_of(kernel_, lanes, run, runs, pitch); }
  void add(const Lane* columns, int pitch, const Lane* lanes, TileStrides strides, int64_t n, int depth, int64_t group) {
    kernel_.build_rows(products_, range_, columns, pitch, depth, rows_.get());
    kernel_.add_rows(lanes, strides, n, depth, rows_.get(), state_.group(group, n));
  }
  void close(int64_t n, int64_t group, int64_t* overflows) {
    kernel_.close32(accumulator_, state_.group(group, n), n, overflows);
  }
  int32_t read(int64_t i) const { return accumulator_.read(state_.get()[i]); }

  static CodeRange range_of(const Kernels& kernel, const Lane* lanes, int64_t run, int64_t runs, int64_t pitch) {
    CodeRange range;
    if (run == pitch)
      kernel.widen_range(lanes, run * runs, &range);
    else
      for (int64_t i = 0; i < runs; ++i) kernel.widen_range(lanes + i * pitch, run, &range);
    return range;
  }

 private:
  const Kernels& kernel_;
  Accumulator<int32_t> accumulator_;
  const SignedProducts& products_;
  CodeRange range_;
  Scratch<int32_t> rows_{kRowDepth * kLaneCodes * kColumns};
  Growing<int32_t> state_;
};

// Rows again, where accumulator and sum do not fit 32 bits together: the sum is kept in two 32-bit planes beside it.
class RowPlanesPath {
 public:
  using Lane = uint8_t;
  static constexpr int kDepth = kRowDepth;

  RowPlanesPath(const Kernels& kernel, const Datapath& d, const SignedProducts& low, const SignedProducts* high, int shift)
      : kernel_(kernel), accumulator_(d), low_(low), high_(high), shift_(shift) {}

  void start(int64_t rows, int64_t groups) {
    for (Growing<int32_t>* t : {&acc_, &low_sum_, &high_sum_}) t->clear(rows * groups * kColumns);
  }
  void see(const Lane* lanes, int64_t run, int64_t runs, int64_t pitch) {
    range_ = RowPath::range_of(kernel_, lanes, run, runs, pitch);
  }
  void add(const Lane* columns, int pitch, const Lane* lanes, TileStrides strides, int64_t n, int depth, int64_t group) {
    kernel_.build_rows(low_, range_, columns, pitch, depth, rows_.get());
    kernel_.add_rows(lanes, strides, n, depth, rows_.get(), low_sum_.group(group, n));
    if (!high_) return;
    kernel_.build_rows(*high_, range_, columns, pitch, depth, rows_.get());
    kernel_.add_rows(lanes, strides, n, depth, rows_.get(), high_sum_.group(group, n));
  }
  void close(int64_t n, int64_t group, int64_t* overflows) {
    kernel_.close_planes(accumulator_, acc_.group(group, n), low_sum_.group(group, n), high_sum_.group(group, n), shift_, n,
                         overflows);
  }
  int32_t read(int64_t i) const { return acc_.get()[i]; }

 private:
  const Kernels& kernel_;
  Accumulator<int64_t> accumulator_;
  const SignedProducts& low_;
  const SignedProducts* high_;  // null where every product fits the low plane
  int shift_;
  CodeRange range_;
  Scratch<int32_t> rows_{kRowDepth * kLaneCodes * kColumns};
  Growing<int32_t> acc_, low_sum_, high_sum_;
};

// One read of the product table for every product, for any format and few rows.
template <typename State>
class LookupPath {
 public:
  using Lane = int16_t;
  static constexpr int kDepth = 32;

  LookupPath(const Kernels& kernel, const Datapath& d, const State* table, int zero_start)
      : kernel_(kernel), accumulator_(d), table_(table), zero_start_(zero_start) {}

  void start(int64_t rows, int64_t groups) { state_.clear(rows * groups * kColumns); }
  void see(const Lane*, int64_t, int64_t, int64_t) {}
  void add(const Lane* columns, int pitch, const Lane* lanes, TileStrides strides, int64_t n, int depth, int64_t group) {
    for (int d = 0; d < depth; ++d)
      for (int c = 0; c < kColumns; ++c) {
        const int lane = columns[c * pitch + d];
        columns_.get()[d].start[c] = lane == 0 ? zero_start_ : lane < 0 ? -lane : lane;
        columns_.get()[d].sign[c] = lane < 0 ? -1 : 0;
      }
    if constexpr (sizeof(State) == 4)
      kernel_.add_lookups32(lanes, strides, n, depth, columns_.get(), table_, state_.group(group, n));
    else
      kernel_.add_lookups64(lanes, strides, n, depth, columns_.get(), table_, state_.group(group, n));
  }
  void close(int64_t n, int64_t group, int64_t* overflows) {
    if constexpr (sizeof(State) == 4)
      kernel_.close32(accumulator_, state_.group(group, n), n, overflows);
    else
      kernel_.close64(accumulator_, state_.group(group, n), n, overflows);
  }
  int32_t read(int64_t i) const { return accumulator_.read(state_.get()[i]); }

 private:
  const Kernels& kernel_;
  Accumulator<State> accumulator_;
  const State* table_;
  int zero_start_;
  Scratch<LookupLane<State>> columns_{kDepth};
  Growing<State> state_;
};

}  // namespace lns::cpu
