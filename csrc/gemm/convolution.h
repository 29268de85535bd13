// The three passes of a 2-D convolution as products over patches that are never stored.
#pragma once

#include "gemm/product.h"

namespace lns {

// Along height or width.
struct ConvAxis {
  int64_t in, kernel, stride, padding, dilation;

  bool fits() const { return in + 2 * padding > dilation * (kernel - 1); }  // else there is no output
  int64_t out() const { return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1; }
};

// Shapes of x (batch, in_channels, y.in, x.in), w (out_channels, in_channels / groups, y.kernel, x.kernel), and the
// output.
struct ConvShape {
  int64_t batch, in_channels, out_channels, groups;
  ConvAxis y, x;
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
// Scales: dy per image, w per input channel of a group. One product per phase of the stride. Where all vectors of
// `vector_size` lanes lie within a tap, those of unused taps change no sum and are left out, unless lanes are counted.
std::vector<Product> conv_input_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& w, void* dx,
                                         int vector_size, bool count);

// dw from dy and x: K is (image, y, x) of the output, x fastest. Scales: dy per output channel, x per input channel.
Product conv_weight_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& x, void* dw);

}  // namespace lns
