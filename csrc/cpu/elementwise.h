// Elementwise kernels over whole tensors: quantize, dequantize, re-scale, forward codes, the LNS-Madam step.
#pragma once

#include "core/float8.h"
#include "core/madam.h"
#include "core/powers_of_two.h"
#include "core/rescale.h"
#include "core/slices.h"
#include "gemm/operand.h"

namespace lns::cpu {

// Codes and scales of x. `scale` has `slices` entries.
void quantize(const Quantizer& q, const RandomState& random, const float* x, const Slices& s, void* codes,
              float* scale);
void dequantize(const CodeView& codes, const QuantizerTables& tables, const float* scale, const Slices& s, float* x);
void rescale(const Quantizer& q, const RandomState& random, const void* codes, const float* old_scale,
             const float* new_scale, const Slices& s, void* out);
// Random numbers in [0, 1).
void uniform(const RandomState& random, int64_t n, float* u);
// Powers of two up to `top`, or zero.
void round_to_powers(const PowerRounding& r, const float* top, const RandomState& random, const float* x, int64_t n,
                     float* out);
// max|x|.
void largest_magnitude(const float* x, int64_t n, float* top);
// The scale at which max|x| is `largest`.
void scale_to_largest(const float* x, int64_t n, double largest, float* scale);
// Codes of x on a grid, int8 where they fit and else int16, or float32 values of the nearest ones; their one scale, and
// the shift of each slice. Stochastic where a random state is given.
void quantize_integers(const IntegerGrid& g, bool values, const RandomState* random, const float* x, const Slices& s,
                       void* out, float* scale, int32_t* shifts);
// Numbers of 8 bits of x / scale, and what they stand for.
void quantize_float8(bool e5m2, const float* scale, const float* x, int64_t n, uint8_t* codes);
void dequantize_float8(bool e5m2, const uint8_t* codes, const float* scale, int64_t n, float* x);
// Forward-format codes and scales of update-format codes (spec section 5).
void forward_codes(const Format& forward, const CodeView& update, const float* update_scale, const Slices& s,
                   void* codes, float* scale);
// One LNS-Madam step in place. `scale` and `cap` (the largest magnitude allowed) have one entry per slice.
void madam_step(const Quantizer& q, const MadamStep& step, const RandomState& random, void* codes, const float* scale,
                const float* grad, float* moment, const float* cap, const Slices& s);

}  // namespace lns::cpu
