// Elementwise kernels of tensors with block scales.
#pragma once

#include "core/blocks.h"
#include "gemm/operand.h"

namespace lns::cpu {

// Codes, scale and shifts of x; `scale` is one number, `shifts` has an entry for each block.
void quantize_blocks(const Quantizer& q, const RandomState& random, const float* x, const Blocks& b, int s_max,
                     void* codes, float* scale, uint8_t* shifts);
void dequantize_blocks(const CodeView& codes, const QuantizerTables& tables, const float* scale, const uint8_t* shifts,
                       const Blocks& b, float* x);
// The same of update-format codes as forward codes (spec section 5). `scale` is given: that of the forward codes.
void forward_blocks(const Format& forward, const CodeView& update, const float* update_scale, const float* scale,
                    const Blocks& b, int s_max, void* codes, uint8_t* shifts);

}  // namespace lns::cpu
