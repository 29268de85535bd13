// Every vector kernel against the core's function of one element: what runs is what is defined.
#include "cpu/kernels.h"
#include "check.h"

namespace lns::test {

namespace {

using cpu::kColumns;
using cpu::Kernels;
using cpu::kernels;
using cpu::VectorShifts;

const Rounding kRoundings[] = {Rounding::nearest, Rounding::stochastic};
const Underflow kUnderflows[] = {Underflow::clamp, Underflow::flush, Underflow::stochastic};
// Element indices whose upper half changes within the first block.
const RandomState kRandom = {.seed = 0x123456789abcdefu, .step = 7, .tensor = 3, .first = 0xffffffc0u};

// Each threshold and value of the quantizer with its neighbours, in a few octaves; the ends of the floats; random
// words.
std::vector<float> floats(const QuantizerTables& tables) {
  std::vector<uint32_t> bits = {0,          1,          2,          0x007fffff, 0x00800000,
                                0x00800001, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000};
  for (const auto* edges : {&tables.thresholds, &tables.values})
    for (const uint32_t edge : *edges)
      for (const uint32_t octave : {1u, 120u, 127u, 254u})
        for (const uint32_t by : {0u, 1u, ~0u}) bits.push_back((octave << 23) + (edge - (1u << 23)) + by);
  for (int i = 0; i < 1500; ++i) bits.push_back(random_word());
  std::vector<float> x;
  for (const uint32_t b : bits) x.push_back(bits_float(random_int(0, 1) ? b ^ 0x80000000u : b));
  return x;
}

template <typename Code>
void check_quantizer(const Quantizer& q, const std::vector<float>& x, int k,
                     void (*kernel)(const Quantizer&, const RandomState&, const float*, int64_t, uint64_t, int,
                                    Code*)) {
  const int64_t n = static_cast<int64_t>(x.size());
  std::vector<Code> codes(x.size());
  kernel(q, kRandom, x.data(), n, 5, k, codes.data());
  for (int64_t i = 0; i < n; ++i)
    CHECK(codes[i] == static_cast<Code>(quantize_one(q, float_bits(x[i]), k, philox_u24(kRandom, 5 + i))));
}

void test_quantizers() {
  for (int gamma = 1; gamma <= 2048; gamma *= 2) {
    const QuantizerTables tables(gamma);
    const std::vector<float> x = floats(tables);
    for (const Rounding r : kRoundings)
      for (const Underflow u : kUnderflows)
        for (const int k : {-126, 0, 100}) {
          check_quantizer(tables.view({.bits = 16, .gamma = gamma}, r, u), x, k, kernels().quantize16);
          if (gamma <= 128) check_quantizer(tables.view({.bits = 8, .gamma = gamma}, r, u), x, k, kernels().quantize8);
        }
  }
  std::vector<int64_t> given;  // of a converter of its own
  for (int j = 0; j < 32; ++j) given.push_back((int64_t{1} << 23) + j * (int64_t{1} << 18) + 77);
  const QuantizerTables other(32, given);
  for (const Underflow u : kUnderflows)
    check_quantizer(other.view({.bits = 8, .gamma = 32}, Rounding::nearest, u), floats(other), 0, kernels().quantize8);
}

template <typename Code>
std::vector<Code> all_codes(const Format& f) {
  std::vector<Code> codes;
  for (int code = 0; code < 1 << f.bits; ++code) codes.push_back(static_cast<Code>(code));
  return codes;
}

template <typename Code>
void check_rescale(const Format& f, void (*kernel)(const Quantizer&, const RandomState&, const Code*, int64_t, uint64_t,
                                                   int, int, Code*)) {
  const QuantizerTables tables(f.gamma);
  const std::vector<Code> codes = all_codes<Code>(f);
  std::vector<Code> out(codes.size());
  struct Scales {
    int from, to;
  };
  for (const Underflow u : kUnderflows)
    for (const auto [from, to] : {Scales{0, 0}, {0, 3}, {5, 3}, {-126, 127}, {127, -126}}) {
      const Quantizer q = tables.view(f, Rounding::nearest, u);
      kernel(q, kRandom, codes.data(), static_cast<int64_t>(codes.size()), 0, from, to, out.data());
      for (size_t i = 0; i < codes.size(); ++i)
        CHECK(out[i] == static_cast<Code>(rescale_code(q, codes[i], from, to, philox_u24(kRandom, i))));
    }
}

template <typename From, typename To>
void check_coarsen(const Format& update, const Format& forward) {
  const std::vector<From> codes = all_codes<From>(update);
  std::vector<To> out(codes.size());
  for (const int octaves : {0, 1, -2}) {
    const Coarsening c = {.update = update,
                          .forward = forward,
                          .shift = log2_exact(update.gamma / forward.gamma),
                          .offset = octaves * forward.gamma};
    kernels().coarsen(c, codes.data(), static_cast<int64_t>(codes.size()), out.data());
    for (size_t i = 0; i < codes.size(); ++i) CHECK(out[i] == static_cast<To>(coarsen_code(c, codes[i])));
  }
}

template <typename Code>
void check_madam(const Format& f, void (*kernel)(const Format&, const MadamStep&, const RandomState&, Code*,
                                                 const float*, float*, int64_t, uint64_t, int)) {
  const QuantizerTables tables(8);
  for (const bool stochastic : {false, true})
    for (const float per_unit : {0.3f, 16.0f, 1e30f})
      for (const int e_cap : {1, f.e_max() / 2, f.e_max()}) {
        const MadamStep s = {.beta = 0.9f,
                             .one_minus_beta = 0.1f,
                             .bias_correction = 0.5f,
                             .bound = 10.0f,
                             .codes_per_unit = per_unit,
                             .stochastic = stochastic};
        const std::vector<float> grad = floats(tables);
        std::vector<float> moment;
        std::vector<Code> codes;
        for (size_t i = 0; i < grad.size(); ++i) {
          moment.push_back(i % 3 ? std::abs(bits_float(random_word() & 0x7f7fffffu)) : 0.0f);
          codes.push_back(static_cast<Code>(random_int(0, (1 << f.bits) - 1)));
        }
        std::vector<float> new_moment = moment;
        std::vector<Code> new_codes = codes;
        kernel(f, s, kRandom, new_codes.data(), grad.data(), new_moment.data(), static_cast<int64_t>(grad.size()), 9,
               e_cap);
        for (size_t i = 0; i < grad.size(); ++i) {
          const float v = madam_moment(s, moment[i], grad[i]), distance = madam_distance(s, v, grad[i]);
          const int by =
              stochastic ? round_stochastic(distance, philox_u24(kRandom, 9 + i)) : round_half_even(distance);
          CHECK(same(new_moment[i], v));
          CHECK(new_codes[i] == static_cast<Code>(madam_code(f, codes[i], by, e_cap)));
        }
      }
}

void test_drawing_floats() {
  const int64_t n = 1000;
  std::vector<float> u(n);
  kernels().uniform(kRandom, n, 3, u.data());
  for (int64_t i = 0; i < n; ++i) CHECK(u[i] == unit_float(philox_u24(kRandom, 3 + i)));

  const std::vector<float> x = floats(QuantizerTables(16));
  std::vector<float> out(x.size());
  for (const bool below : {false, true})
    for (const bool above : {false, true})
      for (const float unit : {1.0f, 3e-39f, 0.0f, 1e30f}) {
        const PowerRounding r = {.octaves = 7, .stochastic_below = below, .stochastic_above = above};
        kernels().round_to_powers(r, unit, kRandom, x.data(), static_cast<int64_t>(x.size()), 11, out.data());
        for (size_t i = 0; i < x.size(); ++i)
          CHECK(same(out[i], round_to_power(r, r.largest(), unit, x[i], unit_float(philox_u24(kRandom, 11 + i)))));
      }
  uint32_t top = 0;
  for (const float value : x) top = std::max(top, float_bits(value) & 0x7fffffffu);
  CHECK(kernels().magnitude_max(x.data(), static_cast<int64_t>(x.size())) == top);
}

template <typename Code>
void check_integers(const IntegerGrid& g, const std::vector<float>& x,
                    void (*kernel)(const IntegerChannel*, bool, const RandomState*, const float*, int64_t, uint64_t,
                                   Code*)) {
  const auto n = static_cast<int64_t>(x.size());
  Ends ends = {.below = 0, .above = 0};
  for (const float value : x) widen(ends, float_bits(value));
  const Ends found = kernels().ends(x.data(), n);
  CHECK(found.below == ends.below && found.above == ends.above);
  std::vector<IntegerChannel> channels;
  for (int64_t i = 0; i < n; ++i)  // of smaller and smaller ranges
    channels.push_back(channel_of(g, {.below = ends.below >> i % 3, .above = ends.above >> i % 3}, range_of(g, ends)));
  std::vector<Code> codes(x.size());
  for (const bool each : {false, true})
    for (const bool draws : {false, true}) {
      kernel(channels.data(), each, draws ? &kRandom : nullptr, x.data(), n, 7, codes.data());
      for (int64_t i = 0; i < n; ++i) {
        const IntegerChannel& c = channels[each ? i : 0];
        const float steps = in_steps(c, x[i]);
        const int rounded = draws ? round_stochastic(steps, philox_u24(kRandom, 7 + i)) : round_half_even(steps);
        CHECK(codes[i] == static_cast<Code>(integer_code(c, rounded)));
      }
    }
  std::vector<float> values(x.size());
  kernels().integer_values(channels[0], 3e-3f, x.data(), n, values.data());
  for (int64_t i = 0; i < n; ++i)
    CHECK(same(values[i], integer_value(channels[0], in_steps(channels[0], x[i]), 3e-3f)));
}

void test_integers_and_floats8() {
  std::vector<float> finite;
  for (const float value : floats(QuantizerTables(16)))
    if (std::isfinite(value)) finite.push_back(value);
  for (const bool zero_point : {false, true})
    for (const int groups : {1, 4}) {
      check_integers({.top = 7, .groups = groups, .zero_point = zero_point}, finite, kernels().integers8);
      check_integers({.top = 255, .groups = groups, .zero_point = zero_point}, finite, kernels().integers16);
    }
  std::vector<uint8_t> codes(finite.size());
  std::vector<float> values(finite.size());
  const auto n = static_cast<int64_t>(finite.size());
  for (const bool e5m2 : {false, true})
    for (const float scale : {1.0f, 3e-39f, 7e36f}) {
      kernels().to_floats8(e5m2, scale, finite.data(), n, codes.data());
      kernels().from_floats8(e5m2, codes.data(), scale, n, values.data());
      for (int64_t i = 0; i < n; ++i) {
        CHECK(codes[i] == to_float8(e4m3_or_e5m2(e5m2), finite[i] / scale));
        CHECK(same(values[i], float8_value(e4m3_or_e5m2(e5m2), codes[i], scale)));
      }
    }
}

// Sums of up to 2^bits, among them the accumulator's limits and what is beside them.
template <typename State>
std::vector<State> sums(const Accumulator<State>& a, int rows, int bits) {
  std::vector<State> s;
  while (static_cast<int>(s.size()) < rows * kColumns) {
    const State any = static_cast<State>((static_cast<int64_t>(random_word()) << 32 | random_word()) >> (64 - bits));
    const State edge = a.state(random_int(0, 1) ? a.low : a.high) + random_int(-2, 2) * a.half + random_int(-2, 2);
    s.push_back(random_int(0, 1) ? any : edge);
  }
  return s;
}

template <typename State>
void check_close(const Datapath& d, int bits, void (*kernel)(const Accumulator<State>&, State*, int64_t, int64_t*)) {
  const Accumulator<State> a(d);
  const std::vector<State> before = sums(a, 5, bits);
  for (const bool counting : {false, true}) {
    std::vector<State> after = before;
    int64_t overflows = 0, expected = 0;
    kernel(a, after.data(), 5, counting ? &overflows : nullptr);
    for (size_t i = 0; i < before.size(); ++i) {
      expected += counting && a.overflows(a.aligned(before[i]));
      CHECK(after[i] == a.close(before[i]));
    }
    CHECK(overflows == expected);
  }
}

void check_close_planes(const Datapath& d, int shift) {
  const Accumulator<int64_t> a(d);
  std::vector<int32_t> acc, low, high;
  for (int i = 0; i < 5 * kColumns; ++i) {
    acc.push_back(static_cast<int32_t>(random_int(0, 2) ? a.narrow(random_int(INT32_MIN, INT32_MAX)) : a.high));
    low.push_back(random_int(-(1 << 30), 1 << 30));
    high.push_back(random_int(-(1 << 20), 1 << 20));
  }
  for (const bool counting : {false, true}) {
    std::vector<int32_t> closed = acc, l = low, h = high;
    int64_t overflows = 0, expected = 0;
    kernels().close_planes(a, closed.data(), l.data(), h.data(), shift, 5, counting ? &overflows : nullptr);
    for (size_t i = 0; i < acc.size(); ++i) {
      const int64_t state = a.state(acc[i]) + (int64_t{high[i]} << shift) + low[i];
      expected += counting && a.overflows(a.aligned(state));
      CHECK(closed[i] == a.read(a.close(state)) && l[i] == 0 && h[i] == 0);
    }
    CHECK(overflows == expected);
  }
}

// Block scales: `close` ends a vector whose sums are `y`, with accumulators beside them, which is checked one by one.
template <typename Close>
void check_shifted(const Datapath& d, const std::vector<int64_t>& y, Close close) {
  const Accumulator<int64_t> a(d);
  uint8_t rows[5];
  int32_t columns[kColumns];
  for (uint8_t& s : rows) s = static_cast<uint8_t>(random_int(0, 1) ? random_int(0, 15) : random_int(0, 127));
  for (int32_t& s : columns) s = random_int(0, 15);
  std::vector<int32_t> acc;
  for (size_t i = 0; i < y.size(); ++i)
    acc.push_back(static_cast<int32_t>(random_int(0, 2) ? a.narrow(random_int(INT32_MIN, INT32_MAX)) : a.high));
  for (const bool counting : {false, true}) {
    alignas(64) int32_t closed[5 * kColumns];
    std::copy(acc.begin(), acc.end(), closed);
    int64_t overflows = 0, expected = 0;
    close(VectorShifts{.rows = rows, .columns = columns}, closed, counting ? &overflows : nullptr);
    for (size_t i = 0; i < y.size(); ++i) {
      const int64_t sum = acc[i] + a.shifted(y[i], rows[i / kColumns] + columns[i % kColumns]);
      expected += counting && a.overflows(sum);
      CHECK(closed[i] == a.narrow(sum));
    }
    CHECK(overflows == expected);
  }
}

void check_close_shifted(const Datapath& d) {
  std::vector<int64_t> y;
  const auto fill = [&](int bits) {
    y.clear();
    for (int i = 0; i < 5 * kColumns; ++i)
      y.push_back(static_cast<int64_t>(static_cast<uint64_t>(random_word()) << 32 | random_word()) >> (64 - bits));
  };
  alignas(64) int32_t low[5 * kColumns], high[5 * kColumns];
  alignas(64) int64_t whole[5 * kColumns];
  if (d.acc_bits <= 22) {
    fill(30);
    check_shifted(d, y, [&](const VectorShifts& shifts, int32_t* acc, int64_t* overflows) {
      std::copy(y.begin(), y.end(), low);
      kernels().close_shifted32(Accumulator<int32_t>(d), shifts, acc, low, 5, overflows);
      for (const int32_t left : low) CHECK(left == 0);
    });
  }
  for (const int plane : {1, 17, 26}) {
    fill(30 + plane);
    check_shifted(d, y, [&](const VectorShifts& shifts, int32_t* acc, int64_t* overflows) {
      for (size_t i = 0; i < y.size(); ++i)
        high[i] = static_cast<int32_t>(y[i] >> plane), low[i] = static_cast<int32_t>(y[i] & ((1 << plane) - 1));
      kernels().close_shifted_planes(Accumulator<int64_t>(d), shifts, acc, low, high, plane, 5, overflows);
      for (int i = 0; i < 5 * kColumns; ++i) CHECK(low[i] == 0 && high[i] == 0);
    });
  }
  fill(60);
  check_shifted(d, y, [&](const VectorShifts& shifts, int32_t* acc, int64_t* overflows) {
    std::copy(y.begin(), y.end(), whole);
    kernels().close_shifted64(Accumulator<int64_t>(d), shifts, acc, whole, 5, overflows);
    for (const int64_t left : whole) CHECK(left == 0);
  });
}

void test_closing() {
  for (const Alignment rounding : {Alignment::truncate, Alignment::nearest})
    for (const Overflow overflow : {Overflow::saturate, Overflow::wrap})
      for (const int acc_bits : {4, 12, 22, 32}) {
        Datapath d = datapath({.bits = 8, .gamma = 8}, acc_bits);
        d.rounding = rounding, d.overflow = overflow;
        if (acc_bits <= 22) check_close<int32_t>(d, 30, kernels().close32);
        check_close<int64_t>(d, 60, kernels().close64);
        for (const int shift : {1, 17, 26}) check_close_planes(d, shift);
        check_close_shifted(d);
      }
}

void test_reading_out() {
  int32_t acc[kColumns * kColumns];
  double rows[kColumns], columns[kColumns];
  alignas(64) float square[kColumns * kColumns];
  Datapath d = datapath({.bits = 8, .gamma = 8}, 24);
  for (int round = 0; round < 50; ++round) {
    for (int32_t& a : acc) a = static_cast<int32_t>(random_word()) >> random_int(0, 31);
    for (int i = 0; i < kColumns; ++i) {
      d.acc_lsb = random_int(-700, 700);
      rows[i] = unit_factor(d) * scale_factor(random_int(0, 9) ? scale_bits(random_int(-126, 127)) : kNanBits);
      columns[i] = scale_factor(scale_bits(random_int(-126, 127)));
    }
    kernels().read_out(acc, rows, columns, kColumns, square);
    for (int i = 0; i < kColumns * kColumns; ++i)
      CHECK(same(square[i], read_out(acc[i], rows[i / kColumns] * columns[i % kColumns])));
  }
}

}  // namespace

void test_kernels() {
  const Format update = {.bits = 16, .gamma = 2048}, byte = {.bits = 8, .gamma = 8}, odd = {.bits = 12, .gamma = 64};
  test_quantizers();
  for (const Format& f : {byte, Format{.bits = 6, .gamma = 4}, Format{.bits = 2, .gamma = 1}})
    check_rescale<uint8_t>(f, kernels().rescale8);
  for (const Format& f : {update, odd}) check_rescale<int16_t>(f, kernels().rescale16);
  check_coarsen<int16_t, uint8_t>(update, byte);
  check_coarsen<int16_t, int16_t>(update, odd);
  check_coarsen<uint8_t, uint8_t>(byte, {.bits = 5, .gamma = 2});
  check_coarsen<uint8_t, int16_t>(byte, {.bits = 10, .gamma = 8});
  check_madam<uint8_t>(byte, kernels().madam8);
  check_madam<int16_t>(update, kernels().madam16);
  test_drawing_floats();
  test_closing();
  test_reading_out();
}

}  // namespace lns::test
