// The torch-free core and kernels in a program of their own, to run under address and undefined-behaviour sanitizers:
// every format's tables, every kernel path and instruction set against a direct evaluation, edges of every buffer.
#include <array>
#include <cmath>

#include "check.h"
#include "cpu/dot_products.h"
#include "cpu/elementwise.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "gemm/convolution.h"

namespace lns::cpu {
void parallel_for(int64_t n, int64_t, const std::function<void(int64_t, int64_t)>& body) {
  for (int64_t i = 0; i < n; i += 3) body(i, std::min(n, i + 3));
}
int num_threads() { return 2; }
}  // namespace lns::cpu

namespace {

using namespace lns;
using namespace lns::cpu;
using namespace lns::test;

int32_t dot(const Datapath& d, const std::vector<int64_t>& table, const std::vector<int>& a, const std::vector<int>& b,
            int64_t* overflows) {
  const Accumulator<int64_t> accumulator(d);
  int64_t state = 0;
  for (size_t k = 0; k < a.size(); ++k) {
    const int ea = d.format.exponent(a[k]), eb = d.format.exponent(b[k]);
    if (ea && eb) state += d.format.negative(a[k]) != d.format.negative(b[k]) ? -table[ea + eb] : table[ea + eb];
    if ((k + 1) % d.vector_size != 0 && k + 1 != a.size()) continue;
    *overflows += accumulator.overflows(accumulator.aligned(state));
    state = accumulator.close(state);
  }
  return accumulator.read(state);
}

void test_products(const Datapath& d, int64_t m, int64_t n, int64_t k) {
  validate(d);
  const std::vector<int64_t> table = product_table(d);
  const Codes a(d.format, m * k), b(d.format, k * n);
  const float one = 1.0f;
  std::vector<int32_t> out(m * n);
  Counters counters;
  const Product product = {.left = {.operand = OperandView::strided(a.view(), k, Axis::flat(k, 1)),
                                    .rows = m,
                                    .output = Axis::flat(m, n),
                                    .scale = &one,
                                    .scale_axis = Axis::flat(m, 0)},
                           .right = {.operand = OperandView::strided(b.view(), 1, Axis::flat(k, n)),
                                     .rows = n,
                                     .output = Axis::flat(n, 1),
                                     .scale = &one,
                                     .scale_axis = Axis::flat(n, 0)},
                           .k = k,
                           .output = out.data(),
                           .batch = {}};
  int64_t overflows = 0;
  Engine(d).run(product, true, &counters);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      std::vector<int> row, column;
      for (int64_t x = 0; x < k; ++x) {
        row.push_back(a.at(i * k + x));
        column.push_back(b.at(x * n + j));
      }
      CHECK(out[i * n + j] == dot(d, table, row, column, &overflows));
    }
  CHECK(counters.saturations == overflows);
  CHECK(counters.vectors == m * n * ((k + d.vector_size - 1) / d.vector_size));
}

void test_convolutions(const Format& f) {
  Datapath d = datapath(f);
  d.vector_size = 3;
  const ConvShape s = {.batch = 2,
                       .in_channels = 4,
                       .out_channels = 6,
                       .groups = 2,
                       .y = {.in = 7, .kernel = 3, .stride = 2, .padding = 1, .dilation = 1},
                       .x = {.in = 5, .kernel = 2, .stride = 2, .padding = 2, .dilation = 2}};
  CHECK(s.y.out() == 4 && s.x.out() == 4);
  const Codes x(f, 2 * 4 * 7 * 5), w(f, 6 * 2 * 3 * 2), dy(f, 2 * 6 * 4 * 4);
  const float one = 1.0f;
  auto operand = [&](const Codes& c) { return ConvOperand{.codes = c.view(), .scale = &one, .scale_step = 0}; };
  std::vector<float> y(2 * 6 * 4 * 4, NAN), dx(2 * 4 * 7 * 5, NAN), dw(6 * 2 * 3 * 2, NAN);
  Counters counters;
  const Engine engine(d);
  engine.run(conv_forward(s, operand(x), operand(w), y.data()), false, &counters);
  for (const bool count : {true, false})
    for (const Product& phase : conv_input_gradient(s, operand(dy), operand(w), dx.data(), 3, count))
      engine.run(phase, false, &counters);
  engine.run(conv_weight_gradient(s, operand(dy), operand(x), dw.data()), false, &counters);
  for (const auto* v : {&y, &dx, &dw})
    for (const float value : *v) CHECK(!std::isnan(value));  // every element was written
}

void test_elementwise(const Format& f) {
  const QuantizerTables tables(f.gamma);
  const std::vector<float> special = {0.0f, -0.0f, 1e-45f, -1e-40f, 1.0f, -3.4028235e38f, 1.1754944e-38f};
  for (const Rounding r : {Rounding::nearest, Rounding::stochastic})
    for (const Underflow u : {Underflow::clamp, Underflow::flush, Underflow::stochastic}) {
      const Quantizer q = tables.view(f, r, u);
      for (size_t n = 0; n <= 70; ++n) {
        std::vector<float> x;
        for (size_t i = 0; i < n; ++i)
          x.push_back(i < special.size() ? special[i] : std::ldexp(random_int(-999, 999), random_int(-60, 60)));
        Codes codes(f, n), moved(f, n);
        std::vector<float> scale(1), back(n), target = {1.0f};
        void* to = f.bits > 8 ? static_cast<void*>(codes.wide.data()) : codes.narrow.data();
        void* to_moved = f.bits > 8 ? static_cast<void*>(moved.wide.data()) : moved.narrow.data();
        const Slices slices = {1, 1, static_cast<int64_t>(n)};
        quantize(q, {1, 2, 3}, x.data(), slices, to, scale.data());
        dequantize(codes.view(), tables, scale.data(), slices, back.data());
        for (size_t i = 0; i < n; ++i) CHECK(back[i] == 0.0f || std::signbit(back[i]) == std::signbit(x[i]));
        rescale(q, {1, 2, 3}, to, scale.data(), target.data(), slices, to_moved);
        std::vector<float> grad(x), moment(n), cap = {1.0f};
        for (const float bad : {INFINITY, NAN})
          if (n > 9) grad[9] = bad;
        madam_step(q, {0.9f, 0.1f, 0.5f, 10.0f, 1e30f, r == Rounding::stochastic}, {1, 2, 3}, to, scale.data(),
                   grad.data(), moment.data(), cap.data(), slices);
        for (size_t i = 0; i < n; ++i) CHECK(f.exponent(codes.at(i)) <= f.e_max());
      }
      std::vector<float> wild = {1.0f, NAN};
      Codes codes(f, 2);
      float scale;
      quantize(q, {1, 2, 3}, wild.data(), {1, 1, 2},
               f.bits > 8 ? static_cast<void*>(codes.wide.data()) : codes.narrow.data(), &scale);
      CHECK(std::isnan(scale));
    }
}

}  // namespace

int main() {
  for (int bits = 2; bits <= 16; ++bits)
    for (int gamma = 1; gamma <= 1 << (bits - 1) && gamma <= 4096; gamma *= 2) {
      const Format f = {bits, gamma};
      validate(f);
      QuantizerTables tables(gamma);
      for (int j = 1; j < gamma; ++j) CHECK(tables.thresholds[j] > tables.thresholds[j - 1]);
    }
  test_tables();
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    test_kernels();
    test_log();
    for (const Format& f : {Format{8, 8}, Format{5, 4}, Format{2, 1}, Format{8, 128}, Format{11, 16}}) {
      for (const int acc_bits : {12, 24, 32})
        for (const int lut : {1, f.gamma})
          for (const auto [m, n, k] : {std::array{40, 3, 70}, {1, 1, 1}, {3, 2, 33}, {100, 17, 32}}) {
            Datapath d = datapath(f, acc_bits, acc_bits == 24 ? -1 : 2);
            d.lut_entries = lut, d.lut_bits = 12;
            d.rounding = m % 2 == 0 ? Alignment::nearest : Alignment::truncate;
            d.overflow = acc_bits == 12 ? Overflow::wrap : Overflow::saturate;
            test_products(d, m, n, k);
          }
      test_convolutions({.bits = f.bits, .gamma = std::min(f.gamma, 64)});
      test_elementwise(f);
    }
    Datapath sevens = datapath({8, 8});
    sevens.vector_size = 7;
    test_products(sevens, 50, 5, 40);
    test_elementwise({16, 2048});
  }
  std::printf("ok\n");
}
