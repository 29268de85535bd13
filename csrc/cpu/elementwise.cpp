// Splits tensors into runs of one scale and hands the runs to the kernels of the instruction set in use.
#include "cpu/elementwise.h"

#include <atomic>
#include <functional>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace lns::cpu {

namespace {

constexpr int64_t kGrain = 16384;  // elements worth a thread

// Calls body(slice, first, n) for runs of elements that are consecutive in memory and share a scale, in parallel.
void for_runs(const Slices& s, const std::function<void(int64_t, int64_t, int64_t)>& body) {
  if (s.slices == 1) {
    parallel_for(s.numel(), kGrain, [&](int64_t begin, int64_t end) { body(0, begin, end - begin); });
    return;
  }
  if (s.inner == 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrain / s.inner);
  parallel_for(s.outer * s.slices, grain, [&](int64_t begin, int64_t end) {
    for (int64_t run = begin; run < end; ++run) body(run % s.slices, run * s.inner, s.inner);
  });
}

void raise_to(std::atomic<uint32_t>& top, uint32_t value) {
  uint32_t seen = top.load();
  while (seen < value && !top.compare_exchange_weak(seen, value)) {
  }
}

int64_t code_size(const Format& f) { return f.bits > 8 ? 2 : 1; }

}  // namespace

void quantize(const Quantizer& q, const RandomState& random, const float* x, const Slices& s, void* codes,
              float* scale) {
  const Kernels& kernel = kernels();
  std::vector<std::atomic<uint32_t>> top(s.slices);
  for_runs(s,
           [&](int64_t slice, int64_t first, int64_t n) { raise_to(top[slice], kernel.magnitude_max(x + first, n)); });
  for (int64_t i = 0; i < s.slices; ++i) scale[i] = bits_float(scale_for(q, top[i]));
  for_runs(s, [&](int64_t slice, int64_t first, int64_t n) {
    const uint32_t bits = float_bits(scale[slice]);
    const int k = scale_exponent(bits);
    const int64_t size = code_size(q.format);
    if (scale_is_nan(bits))  // no value survives: every code is zero
      memset(static_cast<char*>(codes) + first * size, 0, n * size);
    else if (size == 2)
      kernel.quantize16(q, random, x + first, n, first, k, static_cast<int16_t*>(codes) + first);
    else
      kernel.quantize8(q, random, x + first, n, first, k, static_cast<uint8_t*>(codes) + first);
  });
}

void dequantize(const CodeView& codes, const QuantizerTables& tables, const float* scale, const Slices& s, float* x) {
  const Format& f = codes.format;
  with_code_type(f, [&](auto type) {
    using Code = decltype(type);
    const Code* from = static_cast<const Code*>(codes.data);
    for_runs(s, [&](int64_t slice, int64_t first, int64_t n) {
      const uint32_t bits = float_bits(scale[slice]);
      // A short code's values are few: look them up. A long run of them pays for the table.
      if (f.bits <= 8 && n >= 512) {
        float values[256];  // of every byte, as bits above a code's count nowhere
        for (int c = 0; c < 256; ++c) values[c] = dequantize_one(f, tables.values.data(), c, bits);
        for (int64_t i = first; i < first + n; ++i) x[i] = values[static_cast<uint8_t>(from[i])];
      } else {
        for (int64_t i = first; i < first + n; ++i) x[i] = dequantize_one(f, tables.values.data(), from[i], bits);
      }
    });
  });
}

void rescale(const Quantizer& q, const RandomState& random, const void* codes, const float* old_scale,
             const float* new_scale, const Slices& s, void* out) {
  const Kernels& kernel = kernels();
  for_runs(s, [&](int64_t slice, int64_t first, int64_t n) {
    const uint32_t old_bits = float_bits(old_scale[slice]), new_bits = float_bits(new_scale[slice]);
    const int k_old = scale_exponent(old_bits), k_new = scale_exponent(new_bits);
    const int64_t size = code_size(q.format);
    if (scale_is_nan(old_bits) || scale_is_nan(new_bits))
      memcpy(static_cast<char*>(out) + first * size, static_cast<const char*>(codes) + first * size, n * size);
    else if (size == 2)
      kernel.rescale16(q, random, static_cast<const int16_t*>(codes) + first, n, first, k_old, k_new,
                       static_cast<int16_t*>(out) + first);
    else
      kernel.rescale8(q, random, static_cast<const uint8_t*>(codes) + first, n, first, k_old, k_new,
                      static_cast<uint8_t*>(out) + first);
  });
}

void uniform(const RandomState& random, int64_t n, float* u) {
  parallel_for(n, kGrain,
               [&](int64_t begin, int64_t end) { kernels().uniform(random, end - begin, begin, u + begin); });
}

void round_to_powers(const PowerRounding& r, const float* top, const RandomState& random, const float* x, int64_t n,
                     float* out) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels().round_to_powers(r, *top / r.largest(), random, x + begin, end - begin, begin, out + begin);
  });
}

namespace {

uint32_t top_of(const float* x, int64_t n) {
  std::atomic<uint32_t> top = 0;
  parallel_for(n, kGrain,
               [&](int64_t begin, int64_t end) { raise_to(top, kernels().magnitude_max(x + begin, end - begin)); });
  return top;
}

}  // namespace

void largest_magnitude(const float* x, int64_t n, float* top) { *top = bits_float(top_of(x, n)); }

void scale_to_largest(const float* x, int64_t n, double largest, float* scale) {
  const uint32_t top = top_of(x, n);
  parallel_for(1, 1, [&](int64_t, int64_t) { *scale = scale_to(top, largest); });
}

void quantize_integers(const IntegerGrid& g, bool values, const RandomState* random, const float* x, const Slices& s,
                       void* out, float* scale, int32_t* shifts) {
  const Kernels& kernel = kernels();
  const bool each = s.inner == 1 && s.slices > 1;  // element its own channel
  const Slices runs = each ? Slices{.outer = 1, .slices = s.outer, .inner = s.slices} : s;
  std::vector<std::atomic<uint32_t>> below(s.slices), above(s.slices);
  const auto reaches = [&](int64_t slice, const Ends& found) {
    raise_to(below[slice], found.below);
    raise_to(above[slice], found.above);
  };
  if (each) {
    parallel_for(s.outer, std::max<int64_t>(1, kGrain / s.slices), [&](int64_t begin, int64_t end) {
      std::vector<Ends> found(s.slices, Ends{.below = 0, .above = 0});
      for (int64_t i = begin * s.slices; i < end * s.slices;)
        for (int64_t slice = 0; slice < s.slices; ++slice, ++i) widen(found[slice], float_bits(x[i]));
      for (int64_t slice = 0; slice < s.slices; ++slice) reaches(slice, found[slice]);
    });
  } else {
    for_runs(s, [&](int64_t slice, int64_t first, int64_t n) { reaches(slice, kernel.ends(x + first, n)); });
  }
  std::vector<IntegerChannel> channels(s.slices);
  parallel_for(1, 1, [&](int64_t, int64_t) {
    const auto ends = [&](int64_t i) { return Ends{.below = below[i], .above = above[i]}; };
    uint32_t widest = 0;
    for (int64_t i = 0; i < s.slices; ++i) widest = std::max(widest, range_of(g, ends(i)));
    *scale = scale_of(g, step_for(g, widest));
    for (int64_t i = 0; i < s.slices; ++i) {
      channels[i] = channel_of(g, ends(i), widest);
      shifts[i] = channels[i].shift;
    }
  });
  for_runs(runs, [&](int64_t run, int64_t first, int64_t n) {
    const IntegerChannel* c = channels.data() + (each ? first % s.slices : run);
    if (values)
      kernel.integer_values(*c, *scale, x + first, n, static_cast<float*>(out) + first);
    else if (g.largest() < 128)
      kernel.integers8(c, each, random, x + first, n, first, static_cast<int8_t*>(out) + first);
    else
      kernel.integers16(c, each, random, x + first, n, first, static_cast<int16_t*>(out) + first);
  });
}

void quantize_float8(bool e5m2, const float* scale, const float* x, int64_t n, uint8_t* codes) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels().to_floats8(e5m2, *scale, x + begin, end - begin, codes + begin);
  });
}

void dequantize_float8(bool e5m2, const uint8_t* codes, const float* scale, int64_t n, float* x) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels().from_floats8(e5m2, codes + begin, *scale, end - begin, x + begin);
  });
}

void forward_codes(const Format& forward, const CodeView& update, const float* update_scale, const Slices& s,
                   void* codes, float* scale) {
  const int shift = log2_exact(update.format.gamma) - log2_exact(forward.gamma);
  with_code_type(update.format, [&](auto from_type) {
    using From = decltype(from_type);
    const From* from = static_cast<const From*>(update.data);
    std::vector<std::atomic<uint32_t>> top(s.slices);
    if (spans_fewer_octaves(forward, update.format)) {
      for_runs(s, [&](int64_t slice, int64_t first, int64_t n) {
        int largest = 0;
        for (int64_t i = first; i < first + n; ++i) largest = std::max(largest, update.format.exponent(from[i]));
        raise_to(top[slice], static_cast<uint32_t>(largest));
      });
    }
    for (int64_t i = 0; i < s.slices; ++i) {
      const uint32_t bits = float_bits(update_scale[i]);
      const bool nan = scale_is_nan(bits);
      scale[i] = bits_float(nan ? kNanBits
                                : scale_bits(forward_scale(forward, update.format, shift, static_cast<int>(top[i]),
                                                           scale_exponent(bits))));
    }
    for_runs(s, [&](int64_t slice, int64_t first, int64_t n) {
      const uint32_t old_bits = float_bits(update_scale[slice]), new_bits = float_bits(scale[slice]);
      const int octaves = scale_is_nan(old_bits) ? 0 : scale_exponent(old_bits) - scale_exponent(new_bits);
      kernels().coarsen(
          {.update = update.format, .forward = forward, .shift = shift, .offset = forward.gamma * octaves},
          from + first, n, static_cast<char*>(codes) + first * code_size(forward));
    });
  });
}

void madam_step(const Quantizer& q, const MadamStep& step, const RandomState& random, void* codes, const float* scale,
                const float* grad, float* moment, const float* cap, const Slices& s) {
  const Kernels& kernel = kernels();
  const Format& f = q.format;
  for_runs(s, [&](int64_t slice, int64_t first, int64_t n) {
    const int e_cap = cap_code(q, cap[slice], float_bits(scale[slice]));
    if (f.bits > 8)
      kernel.madam16(f, step, random, static_cast<int16_t*>(codes) + first, grad + first, moment + first, n, first,
                     e_cap);
    else
      kernel.madam8(f, step, random, static_cast<uint8_t*>(codes) + first, grad + first, moment + first, n, first,
                    e_cap);
  });
}

}  // namespace lns::cpu
