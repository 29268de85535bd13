// A number that many indices are divided by.
#pragma once

#include <bit>
#include <cstdint>

#include "core/format.h"

namespace lns {

// The quotient of an index below 2^31 is one multiplication by a reciprocal, rounded up to 32 bits, and a shift: its
// error, index * 2^-31 / divisor at most, is too small to reach the next quotient. On a GPU a division takes some 20
// instructions instead.
class Divisor {
 public:
  Divisor(int64_t value = 0) : value_(value) {           // a number like any other
    if (value < 1 || value >= int64_t{1} << 31) return;  // by these nothing is divided
    shift_ = std::bit_width(static_cast<uint64_t>(value - 1));
    reciprocal_ = static_cast<uint32_t>(((uint64_t{1} << (31 + shift_)) + value - 1) / value);
  }
  LNS_HD operator int64_t() const { return value_; }
  LNS_HD uint32_t quotient(uint32_t index) const {
    return static_cast<uint32_t>(uint64_t{2 * index} * reciprocal_ >> 32) >> shift_;
  }
  LNS_HD uint32_t rest(uint32_t index) const { return index - quotient(index) * static_cast<uint32_t>(value_); }

 private:
  int64_t value_;
  uint32_t reciprocal_ = 0;
  int shift_ = 0;
};

}  // namespace lns
