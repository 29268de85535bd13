// The kernel paths, ways from a tile of lanes to accumulators: register look-ups, row tables, look-ups in the product
// table, bins one by one.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/scratch.h"

namespace lns::cpu {

// A tile: `rows` rows of `depth` lanes, one datapath vector; a stride is 1, and if it is the row's the other is
// kTileRows. Lanes from `depth` up to a multiple of 4 are zero. `active[i]`: do lanes [i * kDepth, (i+1) * kDepth) of a
// path hold any code?
template <typename Lane>
struct Tile {
  const Lane* lanes;
  TileStrides strides;
  int64_t rows;
  int depth;
  const char* active;

  bool rows_are_contiguous() const { return strides.row == 1; }
};

// A group of 16 columns: their lanes of the same vector, lanes[column][pitch].
template <typename Lane>
struct ColumnGroup {
  const Lane* lanes;
  int pitch;
  int64_t index;
};

// ---- Sums: what a path adds products to, and how a vector is closed. state[group][row][column].

// The accumulator and the vector's sum in one 32-bit integer.
class NarrowSums {
 public:
  NarrowSums(const Kernels& kernel, const Datapath& d, int) : kernel_(kernel), accumulator_(d) {}

  void start(int64_t rows, int64_t groups) { state_.clear(rows * groups * kColumns); }
  int32_t* low(int64_t group, int64_t rows) const { return state_.group(group, rows); }
  int32_t* high(int64_t, int64_t) const { return nullptr; }
  void close(int64_t rows, int64_t group, const VectorShifts&, int64_t* overflows) {
    kernel_.close32(accumulator_, state_.group(group, rows), rows, overflows);
  }
  // The accumulators of a group, in place of its states.
  const int32_t* accumulators(int64_t group, int64_t rows) {
    int32_t* state = state_.group(group, rows);
    for (int64_t i = 0; i < rows * kColumns; ++i) state[i] = accumulator_.read(state[i]);
    return state;
  }

 private:
  const Kernels& kernel_;
  Accumulator<int32_t> accumulator_;
  GroupSums<int32_t> state_;
};

// Where they do not fit together: the sum in two 32-bit planes, high * 2^shift + low, beside the accumulator.
class PlaneSums {
 public:
  PlaneSums(const Kernels& kernel, const Datapath& d, int shift) : kernel_(kernel), accumulator_(d), shift_(shift) {}

  void start(int64_t rows, int64_t groups) {
    for (GroupSums<int32_t>* t : {&acc_, &low_, &high_}) t->clear(rows * groups * kColumns);
  }
  int32_t* low(int64_t group, int64_t rows) const { return low_.group(group, rows); }
  int32_t* high(int64_t group, int64_t rows) const { return high_.group(group, rows); }
  void close(int64_t rows, int64_t group, const VectorShifts&, int64_t* overflows) {
    kernel_.close_planes(accumulator_, acc_.group(group, rows), low_.group(group, rows), high_.group(group, rows),
                         shift_, rows, overflows);
  }
  const int32_t* accumulators(int64_t group, int64_t rows) { return acc_.group(group, rows); }

 private:
  const Kernels& kernel_;
  Accumulator<int64_t> accumulator_;
  int shift_;
  GroupSums<int32_t> acc_, low_, high_;
};

// With block scales: the accumulator stands beside the sum, whatever their sizes.
class ShiftedSums {
 public:
  ShiftedSums(const Kernels& kernel, const Datapath& d, int shift, bool apart32)
      : kernel_(kernel), narrow_(d), wide_(d), shift_(shift), apart32_(apart32) {}

  void start(int64_t rows, int64_t groups) {
    for (GroupSums<int32_t>* t : {&acc_, &low_}) t->clear(rows * groups * kColumns);
    if (!apart32_) high_.clear(rows * groups * kColumns);
  }
  int32_t* low(int64_t group, int64_t rows) const { return low_.group(group, rows); }
  int32_t* high(int64_t group, int64_t rows) const { return high_.group(group, rows); }
  void close(int64_t rows, int64_t group, const VectorShifts& shifts, int64_t* overflows) {
    if (apart32_)
      kernel_.close_shifted32(narrow_, shifts, acc_.group(group, rows), low(group, rows), rows, overflows);
    else
      kernel_.close_shifted_planes(wide_, shifts, acc_.group(group, rows), low(group, rows), high(group, rows), shift_,
                                   rows, overflows);
  }
  const int32_t* accumulators(int64_t group, int64_t rows) { return acc_.group(group, rows); }

 private:
  const Kernels& kernel_;
  Accumulator<int32_t> narrow_;
  Accumulator<int64_t> wide_;
  int shift_;
  bool apart32_;
  GroupSums<int32_t> acc_, low_, high_;
};

// ---- Paths: all have a lane type, how many lanes they take at once, what they note of a tile (see), and how they add
// a tile times a group of columns, one vector with its shifts, to the group's accumulators, counting overflows where
// asked to.

// Register look-ups (permute.h).
template <typename LaneType>
class PermutePath {
 public:
  using Lane = LaneType;
  static constexpr int kDepth = PermuteTables<Lane>::kStep;

  PermutePath(const PermuteKernels<Lane>& kernel, const Datapath& d, const PermuteTables<Lane>& tables)
      : kernel_(kernel),
        accumulator_(d),
        tables_(tables),
        magnitudes_(4 * kTileRows * max_steps(d)),
        signs_(4 * kTileRows * max_steps(d)),
        columns_(128 * max_steps(d)) {}

  void start(int64_t rows, int64_t groups) { acc_.clear(rows * groups * kColumns); }
  void see(const Tile<Lane>& tile) {
    active_.clear();
    const int steps = static_cast<int>(ceil_div(tile.depth, kDepth));
    for (int s = 0; s < steps; ++s)
      if (tile.active[s]) active_.push_back(s);
    if (tile.rows_are_contiguous()) {
      rows_ = {.magnitudes = magnitudes_.get(),
               .signs = signs_.get(),
               .strides = {.row = 4, .depth = 4 * tile.rows},
               .rows = tile.rows,
               .negative = false};
      for (const int s : active_)
        rows_.negative |=
            kernel_.pack_lines(tables_, tile.lanes + s * kDepth * kTileRows, tile.rows,
                               magnitudes_.get() + s * rows_.strides.depth, signs_.get() + s * rows_.strides.depth);
    } else {
      rows_ = {.magnitudes = magnitudes_.get(),
               .signs = signs_.get(),
               .strides = {.row = 4 * steps, .depth = 4},
               .rows = tile.rows,
               .negative = false};
      rows_.negative =
          kernel_.pack_rows(tables_, tile.lanes, tile.rows, tile.strides.row, steps, magnitudes_.get(), signs_.get());
    }
  }
  void add(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const VectorShifts& shifts, int64_t* overflows) {
    if (active_.empty()) return;
    kernel_.pack_columns(tables_, columns.lanes, columns.pitch, active_.back() + 1, columns_.get());
    const int64_t count =
        kernel_.accumulate(tables_, rows_, columns_.get(), active_.data(), static_cast<int>(active_.size()),
                           accumulator_, shifts, overflows != nullptr, acc_.group(columns.index, tile.rows));
    if (overflows) *overflows += count;
  }
  const int32_t* accumulators(int64_t group, int64_t rows) { return acc_.group(group, rows); }

 private:
  static int64_t max_steps(const Datapath& d) { return ceil_div(d.vector_size, 4) * 4 / kDepth; }

  const PermuteKernels<Lane>& kernel_;
  Accumulator<int64_t> accumulator_;
  const PermuteTables<Lane>& tables_;
  Scratch<uint8_t> magnitudes_, signs_, columns_;
  PackedRows rows_{};
  std::vector<int> active_;  // the steps that hold any code
  GroupSums<int32_t> acc_;
};

// For each lane a table of all products with 16 columns, a row for each code of the tile; then a product is one row
// added, whatever the product table is. Wide products are split into planes as the sums are.
template <typename Sums>
class RowPath : public Sums {
 public:
  using Lane = uint8_t;
  static constexpr int kDepth = kRowDepth;

  // `high`: null where every product fits the low plane.
  template <typename... Options>
  RowPath(const Kernels& kernel, const Datapath& d, const SignedProducts& low, const SignedProducts* high, int shift,
          Options... options)
      : Sums(kernel, d, shift, options...), kernel_(kernel), low_(low), high_(high) {}

  void see(const Tile<Lane>& tile) {
    range_ = {};
    const int64_t run = tile.rows_are_contiguous() ? tile.rows : tile.depth, runs = tile.rows + tile.depth - run;
    const int64_t pitch = tile.rows_are_contiguous() ? tile.strides.depth : tile.strides.row;
    if (run == pitch)
      kernel_.widen_range(tile.lanes, run * runs, &range_);
    else
      for (int64_t i = 0; i < runs; ++i) kernel_.widen_range(tile.lanes + i * pitch, run, &range_);
  }
  void add(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const VectorShifts& shifts, int64_t* overflows) {
    add_plane(tile, columns, low_, this->low(columns.index, tile.rows));
    if (high_) add_plane(tile, columns, *high_, this->high(columns.index, tile.rows));
    this->close(tile.rows, columns.index, shifts, overflows);
  }

 private:
  void add_plane(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const SignedProducts& products,
                 int32_t* sums) {
    for (int d = 0; d < tile.depth; d += kDepth) {
      if (!tile.active[d / kDepth]) continue;
      const int depth = std::min(kDepth, tile.depth - d);
      kernel_.build_rows(products, range_, columns.lanes + d, columns.pitch, depth, rows_.get());
      kernel_.add_rows(tile.lanes + d * tile.strides.depth, tile.strides, tile.rows, depth, rows_.get(), sums);
    }
  }

  const Kernels& kernel_;
  const SignedProducts& low_;
  const SignedProducts* high_;
  CodeRange range_;
  Scratch<int32_t> rows_{kRowDepth * kLaneCodes * kColumns};
};

// One read of the product table for every product, for any format and few rows.
template <typename State>
class LookupPath {
 public:
  using Lane = int16_t;
  static constexpr int kDepth = 32;

  LookupPath(const Kernels& kernel, const Datapath& d, const State* table, int zero_start, bool shifted)
      : kernel_(kernel), accumulator_(d), table_(table), zero_start_(zero_start), shifted_(shifted) {}

  void start(int64_t rows, int64_t groups) {
    state_.clear(rows * groups * kColumns);
    if (shifted_) accumulators_.clear(rows * groups * kColumns);
  }
  void see(const Tile<Lane>&) {}
  void add(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const VectorShifts& shifts, int64_t* overflows) {
    for (int d0 = 0; d0 < tile.depth; d0 += kDepth) {
      if (!tile.active[d0 / kDepth]) continue;
      const int depth = std::min(kDepth, tile.depth - d0);
      for (int d = 0; d < depth; ++d)
        for (int c = 0; c < kColumns; ++c) {
          const int lane = columns.lanes[c * columns.pitch + d0 + d];
          columns_.get()[d].start[c] = lane == 0 ? zero_start_ : lane < 0 ? -lane : lane;
          columns_.get()[d].sign[c] = lane < 0 ? -1 : 0;
        }
      const Lane* lanes = tile.lanes + d0 * tile.strides.depth;
      if constexpr (sizeof(State) == 4)
        kernel_.add_lookups32(lanes, tile.strides, tile.rows, depth, columns_.get(), table_,
                              state_.group(columns.index, tile.rows));
      else
        kernel_.add_lookups64(lanes, tile.strides, tile.rows, depth, columns_.get(), table_,
                              state_.group(columns.index, tile.rows));
    }
    State* state = state_.group(columns.index, tile.rows);
    if (shifted_) {
      int32_t* acc = accumulators_.group(columns.index, tile.rows);
      if constexpr (sizeof(State) == 4)
        kernel_.close_shifted32(accumulator_, shifts, acc, state, tile.rows, overflows);
      else
        kernel_.close_shifted64(accumulator_, shifts, acc, state, tile.rows, overflows);
    } else {
      if constexpr (sizeof(State) == 4)
        kernel_.close32(accumulator_, state, tile.rows, overflows);
      else
        kernel_.close64(accumulator_, state, tile.rows, overflows);
    }
  }
  const int32_t* accumulators(int64_t group, int64_t rows) {
    if (shifted_) return accumulators_.group(group, rows);
    const State* state = state_.group(group, rows);
    accumulators_.clear(rows * kColumns);
    for (int64_t i = 0; i < rows * kColumns; ++i) accumulators_.get()[i] = accumulator_.read(state[i]);
    return accumulators_.get();
  }

 private:
  const Kernels& kernel_;
  Accumulator<State> accumulator_;
  const State* table_;
  int zero_start_;
  bool shifted_;  // block scales: accumulators stand beside the states, which hold sums
  Scratch<LookupLane<State>> columns_{kDepth};
  GroupSums<State> state_;
  GroupSums<int32_t> accumulators_;
};

// Bins of bounded width, where a vector's sum is not linear in its products: lane by lane, as the hardware does it.
class BinPath {
 public:
  using Lane = int16_t;
  static constexpr int kDepth = 32;

  BinPath(const Datapath& d, const LaneTable& lanes, const std::vector<int64_t>& constants)
      : datapath_(d), accumulator_(d), lanes_(lanes), constants_(constants) {
    if (d.bins == Bins::by_sign) {  // the negative products' bins stand behind the others
      negative_ = static_cast<int>(constants.size()), twice_ = 0;
      for (const int64_t c : constants) constants_.push_back(-c);
    }
    bins_.resize(constants_.size());
  }

  void start(int64_t rows, int64_t groups) { acc_.clear(rows * groups * kColumns); }
  void see(const Tile<Lane>&) {}
  void add(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const VectorShifts& shifts, int64_t* overflows) {
    int32_t* acc = acc_.group(columns.index, tile.rows);
    int64_t count = 0;
    for (int64_t r = 0; r < tile.rows; ++r)
      for (int c = 0; c < kColumns; ++c, ++acc) {
        std::fill(bins_.begin(), bins_.end(), 0);
        for (int i = 0; i < tile.depth; ++i) {
          const int a = tile.lanes[r * tile.strides.row + i * tile.strides.depth],
                    b = columns.lanes[c * columns.pitch + i];
          if (a == 0 || b == 0) continue;
          const int p = std::abs(a) + std::abs(b);
          const int minus = (a ^ b) < 0;  // as a number: a branch on signs would be guessed wrong
          bins_[lanes_.bins[p] + minus * negative_] += lanes_.ones[p] * (1 - minus * twice_);
        }
        int64_t y = 0;
        for (size_t j = 0; j < bins_.size(); ++j) {
          const int64_t kept = negative_ > 0 ? magnitude_in_bits(bins_[j], datapath_.bin_bits, datapath_.bin_overflow)
                                             : in_bits(bins_[j], datapath_.bin_bits, datapath_.bin_overflow);
          count += kept != bins_[j];
          y += kept * constants_[j];
        }
        const int64_t z =
            shifts.rows ? accumulator_.shifted(y, shifts.rows[r] + shifts.columns[c]) : accumulator_.aligned(y);
        const int64_t sum = z + *acc;
        count += accumulator_.overflows(sum);
        *acc = static_cast<int32_t>(accumulator_.narrow(sum));
      }
    if (overflows) *overflows += count;
  }
  const int32_t* accumulators(int64_t group, int64_t rows) { return acc_.group(group, rows); }

 private:
  const Datapath& datapath_;
  Accumulator<int64_t> accumulator_;
  const LaneTable& lanes_;
  std::vector<int64_t> constants_;  // of each bin
  int negative_ = 0;                // the first bin of negative products
  int twice_ = 2;                   // how often these are taken off what positive ones add
  std::vector<int64_t> bins_;
  GroupSums<int32_t> acc_;
};

}  // namespace lns::cpu
