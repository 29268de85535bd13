// The product table as the GPU kernels read it: signs and zero codes are part of the index, so that a product is found
// by adding two lanes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "core/datapath.h"

namespace lns::cuda {

// How a vector's sum Y is held until its accumulation. fused: with the accumulator in one 32-bit integer. wide: 32 bits
// for each, Y emptied every few lanes. float64: with the accumulator in a double. direct: 64-bit products and sums, any
// vector.
enum class Sums { fused, wide, float64, direct };

constexpr int kUnroll = 4;               // lanes between two looks at whether a vector ends
constexpr int64_t kMostBytes = 1 << 16;  // of a table; every GPU's shared memory has room for it beside a tile

// A lane of exponent e is e + zero_shift, plus sign_step if negative; a zero code's is 0.
struct LaneCode {
  uint32_t zero_shift, sign_step;
};

// The sum of two lanes is the index of a row: zero_shift is so large that whatever has a zero in it lands below the
// visible products, and sign_step so large that rows of one sign end where the next one's begin. Both negative is
// positive again: three copies. Rows that do not give all products are not used: direct serves any table.
struct ProductTable {
  Sums sums;
  LaneCode lane_code;
  bool apart32 = false;           // a vector's sum fits 32 bits, and the accumulator with it, once aligned
  int short_lanes = 0;            // wide: how many lanes' products fit 32 bits, with a fraction left
  std::vector<int32_t> rows;      // products, or with float64 upper halves; empty with direct
  std::vector<int64_t> products;  // direct: T[p]

  // `for_blocks`: block scales keep accumulators beside the sums, which have 32 bits, or a double, or are direct.
  explicit ProductTable(const Datapath& d, bool for_blocks = false) : products(product_table(d)) {
    const int e_max = d.format.e_max();
    int last_invisible = 1;
    while (last_invisible < 2 * e_max && products[last_invisible + 1] == 0) ++last_invisible;
    const int zero_shift = std::max(0, e_max - last_invisible), sign_step = 2 * e_max + zero_shift;
    const int64_t count = 2 * int64_t{sign_step} + 2 * e_max + 2 * zero_shift + 1;
    const int64_t largest = *std::max_element(products.begin(), products.end());
    const int64_t room = INT32_MAX - (int64_t{1} << d.fraction_bits());
    short_lanes =
        static_cast<int>(std::min<int64_t>(d.vector_size, room / std::max<int64_t>(largest, 1)) / kUnroll * kUnroll);
    // A vector's sum in units of the accumulator, and one more for rounding.
    const int64_t aligned = (largest * d.vector_size >> d.fraction_bits()) + 1;
    const bool sum32 = largest <= INT32_MAX / d.vector_size;
    apart32 = sum32 && aligned + (int64_t{1} << (d.acc_bits - 1)) <= INT32_MAX;
    if (d.vector_size % kUnroll != 0 || count * static_cast<int64_t>(sizeof(int32_t)) > kMostBytes)
      sums = Sums::direct;
    else if (for_blocks ? sum32 : fits_int32(d, products))
      sums = Sums::fused;
    else if (!for_blocks && short_lanes > 0 && aligned + (int64_t{1} << (d.acc_bits - 1)) <= INT32_MAX)
      sums = Sums::wide;
    else if (largest <= (int64_t{1} << 50) / d.vector_size && d.fraction_bits() + d.acc_bits <= 50 &&
             std::all_of(products.begin(), products.end(), is_upper_half))
      sums = Sums::float64;
    else
      sums = Sums::direct;
    if (sums != Sums::direct) {
      rows.resize(count);
      lane_code = {.zero_shift = static_cast<uint32_t>(zero_shift), .sign_step = static_cast<uint32_t>(sign_step)};
      for (int row = 0; row < count; ++row) {
        const int negatives = std::clamp((row - zero_shift - 1) / sign_step, 0, 2);
        const int p = row - negatives * sign_step - 2 * zero_shift;
        if (p <= last_invisible || p > 2 * e_max) continue;
        const int64_t product = negatives == 1 ? -products[p] : products[p];
        rows[row] = sums == Sums::float64 ? upper_half(product) : static_cast<int32_t>(product);
      }
      if (reproduces(products)) return;
    }
    sums = Sums::direct;
    rows.clear();
    lane_code = {.zero_shift = 0, .sign_step = 1 << 15};
  }

  // Does the sum of any two lanes find their product?
  bool reproduces(const std::vector<int64_t>& product) const {
    const int last = static_cast<int>(product.size()) - 1;
    const auto holds = [&](int64_t row, int64_t value) {
      return row < static_cast<int64_t>(rows.size()) &&
             (sums == Sums::float64 ? from_upper_half(rows[row]) : rows[row]) == value;
    };
    const int64_t zero = lane_code.zero_shift, sign = lane_code.sign_step;
    if (last / 2 + zero + sign > UINT16_MAX) return false;
    for (int e = 0; e <= last / 2; ++e)  // with a zero code
      if (!holds(e == 0 ? 0 : e + zero, 0) || !holds(e == 0 ? 0 : e + zero + sign, 0)) return false;
    for (int p = 2; p <= last; ++p)
      for (int negatives = 0; negatives <= 2; ++negatives)
        if (!holds(p + 2 * zero + negatives * sign, negatives == 1 ? -product[p] : product[p])) return false;
    return true;
  }

 private:
  static int32_t upper_half(int64_t product) {
    return static_cast<int32_t>(std::bit_cast<int64_t>(static_cast<double>(product)) >> 32);
  }
  static int64_t from_upper_half(int32_t half) {
    return static_cast<int64_t>(std::bit_cast<double>(int64_t{half} << 32));
  }
  static bool is_upper_half(int64_t product) { return from_upper_half(upper_half(product)) == product; }
};

}  // namespace lns::cuda
