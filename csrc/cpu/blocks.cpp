#include "cpu/blocks.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/slices.h"
#include "cpu/elementwise.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace lns::cpu {

namespace {

constexpr int64_t kGrain = 16384;  // elements worth a thread
constexpr int64_t kBuffer = 4096;

// The `inner` blocks that start at one place along n: the number of the first of them, their first element, and how
// many elements each has; all of their elements are consecutive in memory.
struct BlockRow {
  int64_t block, first, rows;
};

// Calls make() in every thread, and what it returns with block rows that follow each other.
template <typename Make>
void for_block_rows(const Blocks& b, Make make) {
  if (b.numel() == 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrain / (b.block * b.inner));
  parallel_for(b.outer * b.along(), grain, [&](int64_t begin, int64_t end) {
    auto body = make();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i % b.along() * b.block;
      body({.block = i * b.inner, .first = (i / b.along() * b.n + at) * b.inner, .rows = std::min(b.block, b.n - at)});
    }
  });
}

// Codes of elements that follow each other, at one scale 2^k in place of 2^(k - s): x * 2^s has there the code of x.
class Quantizing {
 public:
  Quantizing(const Quantizer& q, const RandomState& random, int k, void* codes)
      : q_(q), random_(random), k_(k), codes_(codes), buffer_(kBuffer) {}
  Quantizing(Quantizing&&) = default;
  ~Quantizing() { flush(); }

  // The elements from x[first] on, as many as there are factors.
  void add(const float* x, int64_t first, const float* factors, int64_t n) {
    add(x, first, n, [&](int64_t i) { return factors[i]; });
  }
  void add(const float* x, int64_t first, float factor, int64_t n) {
    add(x, first, n, [&](int64_t) { return factor; });
  }
  // Where the product could leave float32.
  void add_one(const float* x, int64_t i, int shift) {
    const bool draws = q_.rounding == Rounding::stochastic || q_.underflow == Underflow::stochastic;
    const int code = quantize_one(q_, float_bits(x[i]), k_ - shift, draws ? philox_u24(random_, i) : 0);
    if (q_.format.bits > 8)
      static_cast<int16_t*>(codes_)[i] = static_cast<int16_t>(code);
    else
      static_cast<uint8_t*>(codes_)[i] = static_cast<uint8_t>(code);
  }

 private:
  template <typename Factor>
  void add(const float* x, int64_t first, int64_t n, Factor factor) {
    for (int64_t i = 0; i < n;) {
      if (count_ == 0) first_ = first + i;
      const int64_t part = std::min(n - i, kBuffer - count_);
      for (int64_t j = 0; j < part; ++j) buffer_[count_ + j] = x[first + i + j] * factor(i + j);
      i += part;
      if ((count_ += part) == kBuffer) flush();
    }
  }
  void flush() {
    if (count_ == 0) return;
    if (q_.format.bits > 8)
      kernels().quantize16(q_, random_, buffer_.data(), count_, first_, k_, static_cast<int16_t*>(codes_) + first_);
    else
      kernels().quantize8(q_, random_, buffer_.data(), count_, first_, k_, static_cast<uint8_t*>(codes_) + first_);
    count_ = 0;
  }

  const Quantizer& q_;
  const RandomState& random_;
  int k_;
  void* codes_;
  std::vector<float> buffer_;
  int64_t first_ = 0, count_ = 0;
};

}  // namespace

void quantize_blocks(const Quantizer& q, const RandomState& random, const float* x, const Blocks& b, int s_max,
                     void* codes, float* scale, uint8_t* shifts) {
  const Kernels& kernel = kernels();
  std::atomic<uint32_t> largest{0};
  parallel_for(b.numel(), kGrain, [&](int64_t begin, int64_t end) {
    const uint32_t top = kernel.magnitude_max(x + begin, end - begin);
    uint32_t seen = largest.load();
    while (seen < top && !largest.compare_exchange_weak(seen, top)) {
    }
  });
  const uint32_t bits = scale_for(q, largest);
  *scale = bits_float(bits);
  // Where a product with 2^s_max has an exponent field that float32 does not hold.
  const bool near_overflow = (largest >> 23) + s_max >= 255;
  const int64_t size = q.format.bits > 8 ? 2 : 1;
  for_block_rows(b, [&] {
    return [&, top = std::vector<uint32_t>(b.inner), factors = std::vector<float>(b.inner),
            quantizing = Quantizing(q, random, scale_exponent(bits), codes)](const BlockRow& row) mutable {
      std::fill(top.begin(), top.end(), 0);
      if (b.inner == 1)
        top[0] = kernel.magnitude_max(x + row.first, row.rows);
      else
        for (int64_t r = 0; r < row.rows; ++r)
          for (int64_t i = 0; i < b.inner; ++i)
            top[i] = std::max(top[i], float_bits(x[row.first + r * b.inner + i]) & 0x7fffffffu);
      uint8_t* shift = shifts + row.block;
      for (int64_t i = 0; i < b.inner; ++i) {
        shift[i] = static_cast<uint8_t>(block_shift(q, top[i], bits, s_max));
        factors[i] = static_cast<float>(pow2(shift[i]));
      }
      if (scale_is_nan(bits))
        memset(static_cast<char*>(codes) + row.first * size, 0, row.rows * b.inner * size);
      else if (near_overflow)
        for (int64_t r = 0; r < row.rows; ++r)
          for (int64_t i = 0; i < b.inner; ++i) quantizing.add_one(x, row.first + r * b.inner + i, shift[i]);
      else if (b.inner == 1)
        quantizing.add(x, row.first, factors[0], row.rows);
      else
        for (int64_t r = 0; r < row.rows; ++r) quantizing.add(x, row.first + r * b.inner, factors.data(), b.inner);
    };
  });
}

void dequantize_blocks(const CodeView& codes, const QuantizerTables& tables, const float* scale, const uint8_t* shifts,
                       const Blocks& b, float* x) {
  const uint32_t bits = float_bits(*scale);
  with_code_type(codes.format, [&](auto type) {
    const auto* from = static_cast<const decltype(type)*>(codes.data);
    for_block_rows(b, [&] {
      return [&](const BlockRow& row) {
        for (int64_t r = 0; r < row.rows; ++r)
          for (int64_t i = 0, at = row.first + r * b.inner; i < b.inner; ++i, ++at)
            x[at] = dequantize_one(codes.format, tables.values.data(), from[at], bits, shifts[row.block + i]);
      };
    });
  });
}

void forward_blocks(const Format& forward, const CodeView& update, const float* update_scale, const float* scale,
                    const Blocks& b, int s_max, void* codes, uint8_t* shifts) {
  const uint32_t old_bits = float_bits(*update_scale), bits = float_bits(*scale);
  const int octaves = scale_is_nan(bits) ? 0 : scale_exponent(old_bits) - scale_exponent(bits);
  const Coarsening coarsening = {.update = update.format,
                                 .forward = forward,
                                 .shift = log2_exact(update.format.gamma) - log2_exact(forward.gamma),
                                 .offset = forward.gamma * octaves};
  with_code_type(update.format, [&](auto from_type) {
    with_code_type(forward, [&](auto to_type) {
      using To = decltype(to_type);
      const auto* from = static_cast<const decltype(from_type)*>(update.data);
      To* to = static_cast<To*>(codes);
      for_block_rows(b, [&] {
        return [&, top = std::vector<int>(b.inner)](const BlockRow& row) mutable {
          std::fill(top.begin(), top.end(), 0);
          for (int64_t r = 0; r < row.rows; ++r)
            for (int64_t i = 0; i < b.inner; ++i)
              top[i] = std::max(top[i], update.format.exponent(from[row.first + r * b.inner + i]));
          for (int64_t i = 0; i < b.inner; ++i)
            shifts[row.block + i] = static_cast<uint8_t>(block_shift(coarsening, top[i], old_bits, bits, s_max));
          Coarsening c = coarsening;
          for (int64_t r = 0; r < row.rows; ++r)
            for (int64_t i = 0, at = row.first + r * b.inner; i < b.inner; ++i, ++at) {
              c.offset = coarsening.offset + forward.gamma * shifts[row.block + i];
              to[at] = static_cast<To>(coarsen_code(c, from[at]));
            }
        };
      });
    });
  });
}

}  // namespace lns::cpu
