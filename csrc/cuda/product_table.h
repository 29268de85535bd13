// The product table as the GPU kernels read it: signs and zero codes are part of the index, so that a product is found by
// adding two lanes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/datapath.h"

namespace lns::cuda {

// How a vector's sum is held until its accumulation. fused: with the accumulator in one 32-bit integer. wide: 64-bit, fed
// every four lanes by a 32-bit sum. factored: 64-bit, products beyond 32 bits looked up as a factor and a power of two.
// direct: 64-bit products, any vector.
enum class Sums { fused, wide, factored, direct };

constexpr int kUnroll = 4;                // lanes between two looks at whether a vector ends
constexpr int kPowerBits = 5;            // of a factored product
constexpr int64_t kMostBytes = 1 << 16;  // of a table; every GPU's shared memory has room for it beside a tile

// A lane of exponent e is e + zero_shift, plus sign_step if negative; a zero code's is 0. The sum of two lanes is the index
// of a row: zero_shift is so large that whatever has a zero in it lands below the visible products, and sign_step so large
// that rows of one sign end where the next one's begin. Both negative is positive again: three copies.
struct ProductTable {
  Sums sums;
  int zero_shift, sign_step;
  std::vector<int32_t> rows;      // products, or with factored factor * 2^kPowerBits + power; empty with direct
  std::vector<int64_t> products;  // direct: T[p]

  explicit ProductTable(const Datapath& d) : products(product_table(d)) {
    const int e_max = d.format.e_max();
    int last_invisible = 1;
    while (last_invisible < 2 * e_max && products[last_invisible + 1] == 0) ++last_invisible;
    zero_shift = std::max(0, e_max - last_invisible);
    sign_step = 2 * e_max + zero_shift;
    const int64_t largest = *std::max_element(products.begin(), products.end());
    const int64_t count = 2 * int64_t{sign_step} + 2 * e_max + 2 * zero_shift + 1;
    sums = fits_int32(d, products) ? Sums::fused : (largest <= INT32_MAX / kUnroll ? Sums::wide : Sums::factored);
    if (d.vector_size % kUnroll != 0 || count * static_cast<int64_t>(sizeof(int32_t)) > kMostBytes ||
        (sums == Sums::factored && !std::all_of(products.begin(), products.end(), factors)))
      sums = Sums::direct;
    if (sums == Sums::direct) {
      zero_shift = 0;
      sign_step = 1 << 15;
      return;
    }
    rows.resize(count);
    for (int row = 0; row < count; ++row) {
      const int negatives = std::clamp((row - zero_shift - 1) / sign_step, 0, 2);
      const int p = row - negatives * sign_step - 2 * zero_shift;
      if (p <= last_invisible || p > 2 * e_max) continue;
      const int64_t product = negatives == 1 ? -products[p] : products[p];
      rows[row] = static_cast<int32_t>(sums == Sums::factored ? factored(product) : product);
    }
  }

 private:
  // factor * 2^power with the largest power that the bits allow.
  static int64_t factored(int64_t product) {
    int power = 0;
    while (product != 0 && product % 2 == 0 && power < (1 << kPowerBits) - 2) product /= 2, ++power;
    return product * (1 << kPowerBits) + power;
  }
  static bool factors(int64_t product) { return factored(product) >> kPowerBits < 1 << (31 - kPowerBits); }
};

}  // namespace lns::cuda
