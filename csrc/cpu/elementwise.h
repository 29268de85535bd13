// Elementwise kernels over whole tensors: quantize, dequantize, re-scale, forward codes, the LNS-Madam step.
#pragma once

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
// Forward-format codes and scales of update-format codes (spec section 5).
void forward_codes(const Format& forward, const CodeView& update, const float* update_scale, const Slices& s,
                   void* codes, float* scale);
// One LNS-Madam step in place. `scale` and `cap` (the largest magnitude allowed) have one entry per slice.
void madam_step(const Quantizer& q, const MadamStep& step, const RandomState& random, void* codes, const float* scale,
                const float* grad, float* moment, const float* cap, const Slices& s);

}  // namespace lns::cpu
