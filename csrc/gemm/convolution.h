// The three passes of a 2-D convolution as products over patches that are never stored.
#pragma once

#include "gemm/product.h"

namespace lns {

// Shapes of x (batch, in_channels, height, width), w (out_channels, in_channels/groups, kh, kw), y.
struct ConvShape {
  int64_t batch, in_channels, height, width;
  int64_t out_channels, kernel_h, kernel_w;
  int64_t out_h, out_w;
  int64_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  int64_t groups;
};

// A contiguous tensor of codes. scale_step is 0 for one scale per tensor, 1 for one per slice along the dimension
// that the pass allows.
struct ConvOperand {
  CodeView codes;
  const float* scale;
  int64_t scale_step;
};

// y = conv(x, w): K is (kh, kw, in channel), channel fastest. Scales: x per image, w per output channel.
Product conv_forward(const ConvShape& s, const ConvOperand& x, const ConvOperand& w, void* y);

// dx from dy and w: K is (kh, kw, out channel), channel fastest; taps that no output used are zero codes.
// Scales: dy per image, w per input channel (when groups is 1). One product per phase of the stride. Where all vectors
// of `vector_size` lanes lie within a tap, those of unused taps change no sum and are left out, unless lanes are
// counted.
std::vector<Product> conv_input_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& w, void* dx,
                                         int vector_size, bool count);

// dw from dy and x: K is (image, y, x) of the output, x fastest. Scales: dy per output channel, x per input channel.
Product conv_weight_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& x, void* dw);

}  // namespace lns
