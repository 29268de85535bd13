// Elementwise kernels of tensors with block scales on a GPU; the counterpart of cpu/blocks.h, with the same results.
#pragma once

#include "core/blocks.h"
#include "cuda/launch.h"
#include "gemm/operand.h"

namespace lns::cuda {

// As in cpu/blocks.h. `rng` as in cuda/elementwise.h; `q` is of the device, and scales are.
void quantize_blocks(const Quantizer& q, const int64_t* rng, const float* x, const Blocks& b, int s_max, void* codes,
                     const float* scale, uint8_t* shifts, const Launch& at);
void dequantize_blocks(const CodeView& codes, const Quantizer& q, const float* scale, const uint8_t* shifts,
                       const Blocks& b, float* x, const Launch& at);
void forward_blocks(const Format& forward, const CodeView& update, const float* update_scale, const float* scale,
                    const Blocks& b, int s_max, void* codes, uint8_t* shifts, const Launch& at);

// Codes, or shifts, of images, and the zeros around them in the result.
struct Images {
  int64_t count, channels, height, width;
  int64_t above, beside;
};
// Contiguous (images, channels, height, width) as (height, channels, width, images); `wide`: of two bytes.
void images_fastest(const void* codes, bool wide, const Images& images, void* to, const Launch& at);

}  // namespace lns::cuda
