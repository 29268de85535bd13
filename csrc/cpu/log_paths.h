// The kernel paths of log-domain accumulation: from a tile of lanes to words, and from words to sums.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <vector>

#include "core/log_datapath.h"
#include "cpu/kernels.h"
#include "cpu/paths.h"
#include "cpu/scratch.h"

namespace lns::cpu {

// A log-domain datapath as its paths read it.
struct LogPathTables {
  LogOperands operands;
  LogRange range;
  LogValues values;
  std::vector<int32_t> steps, mantissas;
  LogStep step;
  std::optional<LogRegisters> registers;  // where its tables and numbers fit them

  explicit LogPathTables(const LogDatapath& d) : LogPathTables(d, log_tables(d)) {}

 private:
  LogPathTables(const LogDatapath& d, const LogTables& tables)
      : operands(d),
        range(d),
        values(d),
        steps(log_steps(tables)),
        mantissas(log_mantissas(d)),
        step({.range = range,
              .products_fit = log_products_fit(d),
              .tree = d.order == LogOrder::tree,
              .steps = steps.data(),
              .last = static_cast<int32_t>(steps.size()) - 1}) {
    const size_t entries = std::max(tables.plus.size(), tables.minus.size());
    const int largest = d.format.e_max() * d.steps_per_code();
    const auto short_entries = [](const std::vector<int64_t>& t) {
      return std::all_of(t.begin(), t.end(), [](int64_t n) { return n <= kShortLogOperand; });
    };
    if (!range.flush || d.acc_bits > 16 || entries > kLogRegisterEntries || largest > kShortLogOperand ||
        largest - d.offset > kShortLogOperand || d.offset > kShortLogOperand || !short_entries(tables.plus) ||
        !short_entries(tables.minus))
      return;
    LogRegisters& r = registers.emplace();
    r = {.low = static_cast<int16_t>(d.e_min()),
         .high = static_cast<int16_t>(d.e_max()),
         .entries = std::max(static_cast<int>(entries), 1),
         .tree = step.tree,
         .plus = {},
         .minus = {}};
    for (size_t i = 0; i < tables.plus.size(); ++i) r.plus[i] = static_cast<int16_t>(tables.plus[i]);
    for (size_t i = 0; i < tables.minus.size(); ++i) r.minus[i] = static_cast<int16_t>(-tables.minus[i]);
    r.minus[0] = kShortLogZero;
  }
};

// What all workers counted.
struct LogTotals {
  std::atomic<int64_t> flushed{0}, saturated{0}, cancelled{0};

  void add(const LogCounts& c) { flushed += c.flushed, saturated += c.saturated, cancelled += c.cancelled; }
};

// What both paths share: words of [group][row][column], and their results.
class LogSums {
 public:
  using Lane = int16_t;
  static constexpr int kDepth = 32;

  explicit LogSums(const LogPathTables& tables) : tables_(tables) {}

  void start(int64_t rows, int64_t groups) {
    rows_ = ceil_div(rows, 2) * 2;
    sums_.clear(rows_ * groups * kColumns);
    std::fill_n(sums_.get(), rows_ * groups * kColumns, kLogZero);
  }
  const int32_t* accumulators(int64_t group, int64_t rows) {
    int32_t* sums = sums_.group(group, rows_);
    for (int64_t i = 0; i < rows * kColumns; ++i) sums[i] = tables_.range.accumulator(sums[i]);
    return sums;
  }
  void read_out(const int32_t* acc, const double* row_factors, const double* column_factors, int rows,
                float* square) const {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < kColumns; ++c)
        square[r * kColumns + c] = static_cast<float>(tables_.values(acc[r * kColumns + c], tables_.mantissas.data()) *
                                                      (row_factors[r] * column_factors[c]));
  }

 protected:
  static bool any_active(const Tile<Lane>& tile) {
    return std::any_of(tile.active, tile.active + ceil_div(tile.depth, kDepth), [](char c) { return c != 0; });
  }
  static int32_t left(const LogOperands& o, Lane lane) { return o.left(lane < 0, std::abs(lane)); }

  const LogPathTables& tables_;
  GroupSums<int32_t> sums_;
  int64_t rows_ = 0;  // an even number
};

// Corrections are read from memory.
class LogLookupPath : public LogSums {
 public:
  LogLookupPath(const Kernels& kernel, const LogPathTables& tables, int depth, LogTotals* totals)
      : LogSums(tables),
        kernel_(kernel),
        pitch_(depth),
        words_(kTileRows * pitch_),
        columns_(pitch_ * kColumns),
        totals_(totals) {}
  LogLookupPath(const LogLookupPath&) = delete;
  ~LogLookupPath() {
    if (totals_) totals_->add(counts_);
  }

  void see(const Tile<Lane>& tile) {
    for (int64_t r = 0; r < tile.rows; ++r)
      for (int d = 0; d < tile.depth; ++d)
        words_.get()[r * pitch_ + d] =
            left(tables_.operands, tile.lanes[r * tile.strides.row + d * tile.strides.depth]);
  }
  void add(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const VectorShifts&, int64_t*) {
    if (!any_active(tile)) return;
    for (int d = 0; d < tile.depth; ++d)
      for (int c = 0; c < kColumns; ++c) {
        const Lane lane = columns.lanes[c * columns.pitch + d];
        columns_.get()[d * kColumns + c] = tables_.operands.right(lane < 0, std::abs(lane));
      }
    kernel_.log_lookups(tables_.step, words_.get(), pitch_, tile.rows, tile.depth, columns_.get(),
                        sums_.group(columns.index, rows_), totals_ ? &counts_ : nullptr);
  }

 private:
  const Kernels& kernel_;
  int64_t pitch_;
  Scratch<int32_t> words_, columns_;
  LogTotals* totals_;  // null: nothing is counted
  LogCounts counts_;
};

// They stand in registers.
class LogRegisterPath : public LogSums {
 public:
  LogRegisterPath(const Kernels& kernel, const LogPathTables& tables, int depth)
      : LogSums(tables),
        kernel_(kernel),
        pitch_(depth),
        pairs_(kTileRows / 2 * pitch_),
        columns_(2 * pitch_ * kColumns) {}

  void see(const Tile<Lane>& tile) {
    for (int64_t r = 0; r < tile.rows; r += 2)
      for (int d = 0; d < tile.depth; ++d) {
        const Lane* lane = tile.lanes + r * tile.strides.row + d * tile.strides.depth;
        const Lane other = r + 1 < tile.rows ? lane[tile.strides.row] : Lane{0};
        pairs_.get()[r / 2 * pitch_ + d] = pair(exponent(*lane, 0), *lane < 0, exponent(other, 0), other < 0);
      }
  }
  void add(const Tile<Lane>& tile, const ColumnGroup<Lane>& columns, const VectorShifts&, int64_t*) {
    if (!any_active(tile)) return;
    for (int d = 0; d < tile.depth; ++d)
      for (int c = 0; c < kColumns; ++c) {
        const Lane lane = columns.lanes[c * columns.pitch + d];
        const int e = exponent(lane, tables_.operands.right_shift / 4);
        const ShortLogPair both = pair(e, lane < 0, e, lane < 0);
        columns_.get()[2 * d * kColumns + c] = both.e;
        columns_.get()[(2 * d + 1) * kColumns + c] = both.sign;
      }
    kernel_.log_registers(*tables_.registers, pairs_.get(), pitch_, ceil_div(tile.rows, 2), tile.depth, columns_.get(),
                          sums_.group(columns.index, rows_));
  }

 private:
  int exponent(Lane lane, int shift) const {
    return lane == 0 ? kShortLogZero : std::abs(lane) * (tables_.operands.scale / 4) - shift;
  }
  static ShortLogPair pair(int e0, bool negative0, int e1, bool negative1) {
    const auto halves = [](int low, int high) {
      return static_cast<int32_t>((static_cast<uint32_t>(low) & 0xffff) | static_cast<uint32_t>(high) << 16);
    };
    return {.e = halves(e0, e1), .sign = halves(-negative0, -negative1)};
  }

  const Kernels& kernel_;
  int64_t pitch_;
  Scratch<ShortLogPair> pairs_;
  Scratch<int32_t> columns_;
};

}  // namespace lns::cpu
