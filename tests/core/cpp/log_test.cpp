// Log-domain accumulation: every kernel beside the core's functions of one number, in order and in trees.
#include <array>

#include "check.h"
#include "core/log_datapath.h"
#include "cpu/dot_products.h"

namespace lns::test {

namespace {

struct Adder {
  LogRange range;
  LogOperands operands;
  std::vector<int32_t> steps;

  explicit Adder(const LogDatapath& d) : range(d), operands(d), steps(log_steps(log_tables(d))) {}

  int32_t product(const Format& f, int a, int b) const {
    return range.keep(
        log_product(operands.left(f.negative(a), f.exponent(a)), operands.right(f.negative(b), f.exponent(b))));
  }
  int32_t add(int32_t x, int32_t y) const {
    const int32_t larger = std::max(x, y), last = static_cast<int32_t>(steps.size()) - 1;
    return range.keep(larger + steps[std::min(larger - std::min(x, y), last)]);
  }
};

void check_engine(const LogDatapath& d) {
  validate(d);
  constexpr int m = 7, n = 19, k = 53;
  const Codes a(d.format, m * k), b(d.format, n * k);
  const Adder adder(d);
  std::array<float, n> ones;
  ones.fill(1.0f);
  std::vector<int32_t> out(m * n);
  const auto side = [&](const Codes& c, int rows, int64_t step) {
    return Side{.operand = OperandView::strided(c.view(), k, Axis::flat(k, 1)),
                .rows = rows,
                .output = Axis::flat(rows, step),
                .scale = ones.data(),
                .scale_axis = Axis::flat(rows, 1)};
  };
  const Product p = {.left = side(a, m, n), .right = side(b, n, 1), .k = k, .output = out.data(), .batch = {}};
  cpu::LogEngine(d).run(p, true, nullptr);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      int32_t acc = kLogZero;
      const int together = d.lanes_together();
      for (int k0 = 0; k0 < k; k0 += together) {
        int size = 1;
        while (size < together) size *= 2;
        std::vector<int32_t> level(size, kLogZero);
        for (int l = 0; l < std::min(together, k - k0); ++l)
          level[l] = adder.product(d.format, a.at(i * k + k0 + l), b.at(j * k + k0 + l));
        for (; size > 1; size /= 2)
          for (int l = 0; l < size / 2; ++l) level[l] = adder.add(level[2 * l], level[2 * l + 1]);
        acc = adder.add(acc, level[0]);
      }
      CHECK(out[i * n + j] == adder.range.accumulator(acc));
    }
}

}  // namespace

void test_log() {
  for (const LogOrder order : {LogOrder::sequential, LogOrder::tree})
    for (const ProductUnderflow underflow : {ProductUnderflow::flush, ProductUnderflow::saturate})
      for (const LogTableKind tables : {LogTableKind::exact, LogTableKind::coarse, LogTableKind::shift}) {
        LogDatapath d = {.format = {.bits = 8, .gamma = 8},
                         .vector_size = 11,
                         .acc_bits = 12,
                         .acc_gamma = 32,
                         .offset = 249,
                         .order = order,
                         .underflow = underflow,
                         .tables = tables,
                         .drop = 3,
                         .plus = {},
                         .minus = {}};
        check_engine(d);
        d.acc_gamma = 8, d.acc_bits = 10, d.offset = 100;  // short tables, many numbers out of range
        check_engine(d);
      }
}

}  // namespace lns::test
