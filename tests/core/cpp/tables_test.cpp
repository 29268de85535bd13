// The product table in the forms that kernels read: each holds it, and one that does not is refused.
#include <bit>

#include "check.h"
#include "cpu/tables.h"
#include "cuda/product_table.h"

namespace lns::test {

namespace {

using cpu::byte_plane_tables;
using cpu::permute_tables;
using cpu::PermuteTables;
using cpu::reproduces;
using cpu::SignedProducts;
using cpu::window_tables;

// Of the GPU kernels: for every pair of codes the sum of their lanes finds the signed product.
void check_gpu_table(const Datapath& d, bool for_blocks) {
  const std::vector<int64_t> products = product_table(d);
  const cuda::ProductTable t(d, for_blocks);
  if (t.sums == cuda::Sums::direct) return;
  const Format& f = d.format;
  auto lane = [&](int code) {
    const int e = f.exponent(code);
    return e == 0 ? 0u : e + t.lane_code.zero_shift + (f.negative(code) ? t.lane_code.sign_step : 0);
  };
  for (int a = 0; a < 1 << f.bits; ++a)
    for (int b = 0; b < 1 << f.bits; ++b) {
      const int ea = f.exponent(a), eb = f.exponent(b);
      const int64_t product = ea && eb ? (f.negative(a) != f.negative(b) ? -products[ea + eb] : products[ea + eb]) : 0;
      const size_t row = lane(a) + lane(b);
      CHECK(row < t.rows.size() && lane(a) <= UINT16_MAX);
      const int64_t entry = t.rows[row];
      const bool is_half = t.sums == cuda::Sums::float64;
      CHECK((is_half ? static_cast<int64_t>(std::bit_cast<double>(static_cast<uint64_t>(entry) << 32)) : entry) ==
            product);
    }
}

// One that an option changed which the tables know nothing of.
std::vector<int64_t> altered(std::vector<int64_t> product, size_t p) {
  product[p] += 1;
  return product;
}

void test_altered_tables() {
  const Datapath d = datapath({.bits = 8, .gamma = 8});
  const std::vector<int64_t> product = product_table(d);
  const size_t last = product.size() - 1;

  const PermuteTables<uint8_t> windows = *window_tables<uint8_t>(d);
  const PermuteTables<uint8_t> planes = *byte_plane_tables(d, product);
  const PermuteTables<int16_t> words = *window_tables<int16_t>(d);
  CHECK(reproduces(windows, product) && reproduces(planes, product) && reproduces(words, product));
  for (const size_t p : {size_t{2}, last / 2, last}) {
    const std::vector<int64_t> other = altered(product, p);
    CHECK(!reproduces(windows, other) && !reproduces(planes, other) && !reproduces(words, other));
    // Bytes are made of any table, so these serve it; words have one form alone.
    CHECK(permute_tables<uint8_t>(d, other)->halves != 0 && !permute_tables<int16_t>(d, other));
  }
  const auto refused = [&](auto t, auto alter) {
    alter(t);
    CHECK(!reproduces(t, product));
  };
  refused(windows, [](auto& t) { t.units[3] ^= 1; });
  refused(windows, [](auto& t) { t.weights[1][9] = 0; });
  refused(windows, [](auto& t) { ++t.first_shift; });
  refused(windows, [](auto& t) { ++t.column_offset; });
  refused(windows, [](auto& t) { t.column_negative = 0; });
  refused(words, [](auto& t) { t.weights[0][33] = 1; });
  refused(planes, [](auto& t) { t.planes[0][t.column_offset - t.row_offset > 0 ? 90 : 200] ^= 1; });
  refused(planes, [](auto& t) { t.halves &= t.halves - 1; });

  // Options of the products that windows cannot hold.
  Datapath bounded = d;
  bounded.product_low = 130, bounded.product_high = 200;
  CHECK(!permute_tables<int16_t>(bounded, product_table(bounded)));

  for (const int acc_bits : {24, 32}) {  // one plane and two
    const Datapath wide = datapath({.bits = 8, .gamma = 8}, acc_bits);
    const std::vector<int64_t> all = product_table(wide);
    const cpu::Tables t(wide);
    CHECK(t.rows && reproduces(t.low, t.high, t.plane_shift, all));
    for (const size_t p : {size_t{2}, last}) CHECK(!reproduces(t.low, t.high, t.plane_shift, altered(all, p)));
    SignedProducts low = t.low;
    low.zero[5] = 1;
    CHECK(!reproduces(low, t.high, t.plane_shift, all));
    low = t.low;
    low.positive[last + 3] = 1;  // behind the products
    CHECK(!reproduces(low, t.high, t.plane_shift, all));
  }

  // Sums of accumulators of 32 bits are doubles, also those of blocks, which have no other way to leave 32 bits.
  CHECK(cuda::ProductTable(datapath({.bits = 8, .gamma = 8}, 32), true).sums == cuda::Sums::float64);
  const cuda::ProductTable gpu(d);
  CHECK(gpu.sums != cuda::Sums::direct && gpu.reproduces(product));
  for (const size_t p : {size_t{2}, last / 2, last}) CHECK(!gpu.reproduces(altered(product, p)));
  cuda::ProductTable other = gpu;
  other.rows[other.rows.size() / 2] += 1;
  CHECK(!other.reproduces(product));
}

}  // namespace

void test_tables() {
  for (const int acc_bits : {16, 24, 28, 32})
    for (const int more : {-10, -5, 0, 9, 20})
      for (const Format& f : {Format{8, 8}, Format{8, 1}, Format{8, 128}, Format{6, 4}, Format{10, 32}}) {
        Datapath d = datapath(f, acc_bits);
        d.acc_lsb += more;
        for (const bool for_blocks : {false, true}) check_gpu_table(d, for_blocks);
        d.product_offset = f.gamma + 3, d.keep_fraction = true;
        for (const bool for_blocks : {false, true}) check_gpu_table(d, for_blocks);
      }
  test_altered_tables();
}

}  // namespace lns::test
