// Elementwise kernels over whole tensors on a GPU; the counterpart of cpu/elementwise.h, with the same results.
#pragma once

#include <vector>

#include "core/float8.h"
#include "core/madam.h"
#include "core/powers_of_two.h"
#include "core/rescale.h"
#include "core/slices.h"
#include "cuda/launch.h"
#include "gemm/operand.h"

namespace lns::cuda {

// The quantizer's tables of one gamma, in the order in which a device keeps its copy.
std::vector<int32_t> pack(const QuantizerTables& tables);
// A quantizer on the device's copy.
Quantizer view(const int32_t* packed, const QuantizerTables& tables, const Format& f, Rounding r, Underflow u);

// Rows of n codes of 8 bits at most, of which the last may be shorter. What is made of them has no gaps.
struct ByteRows {
  const uint8_t* codes;
  int64_t n;
  int length;
  int64_t inner = 1, outer_stride = 0, inner_stride = 0;

  LNS_HD int64_t count() const { return (n + length - 1) / length; }
  LNS_HD int64_t place(int64_t row) const {
    if (inner == 1) return row * outer_stride;
    return row / inner * outer_stride + row % inner * inner_stride;
  }
};
ByteRows contiguous_rows(const uint8_t* codes, int64_t n);

// Floats in the order of a tensor's elements, in runs of neighbours that lie apart by up to three strides, the
// innermost first; all are one run where `length` is 0.
struct FloatRuns {
  static constexpr int kMultiple = 8;  // of which lengths are

  const float* x;
  uint32_t length = 0;
  uint32_t sizes[2] = {1, 1};
  int64_t strides[3] = {};

  // Where element 0 would lie if all were one run with element i's.
  LNS_HD const float* origin(int64_t i) const {
    if (length == 0) return x;
    const uint32_t run = static_cast<uint32_t>(i) / length, outer = run / sizes[0];
    return x + run % sizes[0] * strides[0] + outer % sizes[1] * strides[1] + outer / sizes[1] * strides[2] -
           int64_t{run} * length;
  }
};

// As in cpu/elementwise.h; `rng` points to the operators' random state on the device, or is null.
void quantize(const Quantizer& q, const int64_t* rng, const FloatRuns& x, const Slices& s, void* codes, float* scale,
              const Launch& at);
// What the codes of n elements of one scale stand for instead.
void quantized_values(const Quantizer& q, const int64_t* rng, const FloatRuns& x, int64_t n, float* values,
                      float* scale, const Launch& at);
// The one scale of n elements, on the device.
void quantizer_scale(const Quantizer& q, const float* x, int64_t n, float* scale, const Launch& at);
void dequantize(const CodeView& codes, const Quantizer& q, const float* scale, const Slices& s, float* x,
                const Launch& at);
void dequantize(const ByteRows& rows, const Format& format, const Quantizer& q, const float* scale, float* x,
                const Launch& at);
void rescale(const Quantizer& q, const int64_t* rng, const void* codes, const float* old_scale, const float* new_scale,
             const Slices& s, void* out, const Launch& at);
void uniform(const int64_t* rng, int64_t n, float* u, const Launch& at);
void round_to_powers(const PowerRounding& r, const float* top, const int64_t* rng, const float* x, int64_t n,
                     float* out, const Launch& at);
void largest_magnitude(const float* x, int64_t n, float* top, const Launch& at);
void scale_to_largest(const float* x, int64_t n, double largest, float* scale, const Launch& at);
void quantize_integers(const IntegerGrid& g, bool values, const int64_t* rng, const float* x, const Slices& s,
                       void* out, float* scale, int32_t* shifts, const Launch& at);
void quantize_float8(bool e5m2, const float* scale, const float* x, int64_t n, uint8_t* codes, const Launch& at);
void dequantize_float8(bool e5m2, const uint8_t* codes, const float* scale, int64_t n, float* x, const Launch& at);
void forward_codes(const Format& forward, const CodeView& update, const float* update_scale, const Slices& s,
                   void* codes, float* scale, const Launch& at);
// `hyper`: the numbers of a MadamStep on the device, see core/encoding.h.
void madam_step(const Quantizer& q, const float* hyper, bool stochastic, const int64_t* rng, void* codes,
                const float* scale, const float* grad, float* moment, const float* cap, const Slices& s,
                const Launch& at);

}  // namespace lns::cuda
