// What the kernels of log-domain accumulation take: tables, and blocks of words (core/log_datapath.h).
#pragma once

#include <cstdint>

#include "core/log_datapath.h"

namespace lns::cpu {

// A datapath as the kernels read it.
struct LogStep {
  LogRange range;
  bool products_fit;  // none of non-zero operands leaves the range
  bool tree;
  const int32_t* steps;  // log_steps
  int32_t last;          // index of its last entry
};

struct LogCounts {
  int64_t flushed = 0, saturated = 0, cancelled = 0;
};

// Tables of up to this many entries stand in vector registers, with 16-bit numbers.
constexpr int kLogRegisterEntries = 64;
struct LogRegisters {
  int16_t low, high;  // E
  int entries;        // behind them nothing is added
  bool tree;
  alignas(64) int16_t plus[kLogRegisterEntries], minus[kLogRegisterEntries];  // minus negated, minus[0] the lowest
};
constexpr int16_t kShortLogZero = INT16_MIN;  // E of zero
// The largest E of an operand: with a zero beside it the sum lies below every E of 16 bits.
constexpr int kShortLogOperand = 1 << 14;

// Two rows' numbers in one word, E of the first below that of the second; signs are all ones where negative.
struct ShortLogPair {
  int32_t e, sign;
};

}  // namespace lns::cpu
