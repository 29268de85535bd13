#include "cpu/tables.h"

#include <algorithm>

namespace lns::cpu {

namespace {

int log2_ceil(int64_t n) {
  int bits = 0;
  while ((int64_t{1} << bits) < n) ++bits;
  return bits;
}

void set_product(SignedProducts& t, size_t p, int64_t value) {
  t.positive[p] = static_cast<int32_t>(value);
  t.negative[p] = -t.positive[p];
}

}  // namespace

bool reproduces(const SignedProducts& low, const SignedProducts& high, int shift, const std::vector<int64_t>& product) {
  for (int p = 0; p < SignedProducts::kEntries; ++p) {
    const int64_t expected = p < static_cast<int>(product.size()) ? product[p] : 0;
    const auto value = [&](const int32_t* l, const int32_t* h) { return (int64_t{h[p]} << shift) + l[p]; };
    if (value(low.positive, high.positive) != expected || value(low.negative, high.negative) != -expected ||
        value(low.zero, high.zero) != 0)
      return false;
  }
  return true;
}

Tables::Tables(const Datapath& d) : lanes(lane_table(d)), constants(lut_constants(d)) {
  const std::vector<int64_t> product = product_table(d);
  const int64_t largest = *std::max_element(product.begin(), product.end());
  permute8 = permute_tables<uint8_t>(d, product);
  permute16 = permute_tables<int16_t>(d, product);

  // Look-ups of a zero code end up behind the products, where the table is zero.
  zero_start = static_cast<int>(product.size());
  const size_t entries = product.size() + d.format.e_max() + 1;
  lookup32.assign(product.begin(), product.end());
  narrow = fits_int32(d, product) && std::equal(product.begin(), product.end(), lookup32.begin());
  lookup32.resize(narrow ? entries : 0);
  if (!narrow) lookup64 = product, lookup64.resize(entries);

  // Without the accumulator, 31 bits hold the sum of a vector of values below 2^plane_shift.
  plane_shift = narrow ? 0 : 31 - log2_ceil(d.vector_size);
  const __int128 sum = static_cast<__int128>(largest) * d.vector_size;
  apart32 = sum <= INT32_MAX && (sum >> d.fraction_bits()) + 1 + (int64_t{1} << (d.acc_bits - 1)) <= INT32_MAX;
  one_plane = narrow || largest >> plane_shift == 0;
  rows = d.format.bits <= 8 && (narrow || (plane_shift > 0 && largest >> plane_shift >> plane_shift == 0));
  if (!rows) return;
  for (size_t p = 0; p < product.size(); ++p) {
    const int64_t upper = one_plane ? 0 : product[p] >> plane_shift;
    set_product(low, p, product[p] - (upper << plane_shift));
    set_product(high, p, upper);
  }
  rows = reproduces(low, high, plane_shift, product);
}

}  // namespace lns::cpu
