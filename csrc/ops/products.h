// The operators that run on the datapath, the same for every device: checks, and what is multiplied with what. `Device`
// is a class whose static function `run` hands products to the device's engine, see ops/cpu and ops/cuda.
#pragma once

#include <torch/csrc/stable/library.h>

#include "gemm/convolution.h"
#include "ops/arguments.h"

namespace lns::ops {

using Ints = std::vector<int64_t>;
using Result = std::tuple<Tensor, Tensor>;

inline Format operand_format(const Ints& datapath, int64_t bits) {
  const Datapath d = decode_datapath(datapath);
  require(bits <= d.format.bits, "an operand of ", bits, " bits does not fit a datapath of ", d.format.bits);
  return make_format(bits, d.format.gamma);
}

inline Tensor new_output(const Tensor& like, const Ints& sizes, bool accumulators) {
  return new_tensor(like, sizes, accumulators ? ScalarType::Int : ScalarType::Float);
}

// Runs the products into `out`; the counters have 4 elements if they are asked for.
template <typename Device>
Result run(const Ints& datapath, const std::vector<Product>& products, bool accumulators, bool count,
           const Tensor& out) {
  Tensor counters = new_tensor(out, {count ? 4 : 0}, ScalarType::Long);
  Device::run(datapath, products, accumulators, out, counters);
  return {out, counters};
}

template <typename Device>
Result matmul(Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, int64_t a_bits, int64_t b_bits, Ints datapath,
              bool accumulators, bool count) {
  const Format fa = operand_format(datapath, a_bits), fb = operand_format(datapath, b_bits);
  check_codes(a, fa, "a");
  check_codes(b, fb, "b");
  check_float(a_scale, "a_scale");
  check_float(b_scale, "b_scale");
  check_device(b, a, "b");
  check_device(a_scale, a, "a_scale");
  check_device(b_scale, a, "b_scale");
  const int64_t rank = a.dim(), outer = rank - 2;
  require(rank >= 2 && b.dim() == rank && a_scale.dim() == rank && b_scale.dim() == rank,
          "matmul takes operands and scales of one rank, 2 or more");
  const int64_t m = a.size(outer), k = a.size(outer + 1), n = b.size(outer + 1);
  require(b.size(outer) == k && k > 0, "a's last dimension must be b's last but one, and not empty");
  require(a_scale.size(outer) == m && a_scale.size(outer + 1) == 1 && b_scale.size(outer) == 1 &&
              b_scale.size(outer + 1) == n,
          "a_scale must be (..., M, 1) and b_scale (..., 1, N)");
  Ints sizes = sizes_of(a);
  sizes[outer + 1] = n;
  int64_t repeats = m * n;
  std::vector<int64_t> output_strides(outer);
  for (int64_t d = outer - 1; d >= 0; --d) {
    require(b.size(d) == sizes[d] && a_scale.size(d) == sizes[d] && b_scale.size(d) == sizes[d],
            "batch dimensions must be equal (expand them first)");
    output_strides[d] = repeats;
    repeats *= sizes[d];
  }
  Batch batch;
  for (int64_t d = 0; d < outer; ++d)
    batch.add(sizes[d], {a.stride(d), b.stride(d), a_scale.stride(d), b_scale.stride(d), output_strides[d]});
  Tensor out = new_output(a, sizes, accumulators);
  const CodeView av = {a.const_data_ptr(), fa}, bv = {b.const_data_ptr(), fb};
  const Product product = {
      {Operand::strided(av, a.stride(outer), Axis::flat(k, a.stride(outer + 1))), m, Axis::flat(m, n),
       a_scale.const_data_ptr<float>(), Axis::flat(m, a_scale.stride(outer))},
      {Operand::strided(bv, b.stride(outer + 1), Axis::flat(k, b.stride(outer))), n, Axis::flat(n, 1),
       b_scale.const_data_ptr<float>(), Axis::flat(n, b_scale.stride(outer + 1))},
      k,
      out.mutable_data_ptr(),
      batch};
  return run<Device>(datapath, {product}, accumulators, count, out);
}

// A contiguous operand and its scale; keeps both tensors alive.
struct ConvArgument {
  Tensor codes, scale;
  ConvOperand operand;

  ConvArgument(const Tensor& c, const Tensor& s, const Format& f, const char* name)
      : codes(torch::stable::contiguous(c)), scale(torch::stable::contiguous(s)) {
    check_codes(c, f, name);
    check_float(s, name);
    check_device(s, c, name);
    require(c.dim() == 4, name, " must have 4 dimensions");
    operand = {{codes.const_data_ptr(), f}, scale.const_data_ptr<float>(), s.numel() > 1 ? 1 : 0};
  }
};

inline int64_t out_extent(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

inline ConvShape conv_shape(const Ints& x, const Ints& w, const Ints& stride, const Ints& padding, const Ints& dilation,
                            int64_t groups) {
  require(x.size() == 4 && w.size() == 4 && stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
          "conv2d takes 4-d operands and 2 strides, paddings and dilations");
  require(groups > 0 && x[1] == w[1] * groups && w[0] % groups == 0, "channels do not match groups");
  return {x[0],
          x[1],
          x[2],
          x[3],
          w[0],
          w[2],
          w[3],
          out_extent(x[2], w[2], stride[0], padding[0], dilation[0]),
          out_extent(x[3], w[3], stride[1], padding[1], dilation[1]),
          stride[0],
          stride[1],
          padding[0],
          padding[1],
          dilation[0],
          dilation[1],
          groups};
}

template <typename Device>
Result conv2d(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, int64_t x_bits, int64_t w_bits, Ints stride,
              Ints padding, Ints dilation, int64_t groups, Ints datapath, bool accumulators, bool count) {
  const ConvArgument xa(x, x_scale, operand_format(datapath, x_bits), "x");
  const ConvArgument wa(w, w_scale, operand_format(datapath, w_bits), "w");
  check_device(w, x, "w");
  const ConvShape s = conv_shape(sizes_of(x), sizes_of(w), stride, padding, dilation, groups);
  Tensor out = new_output(x, {s.batch, s.out_channels, s.out_h, s.out_w}, accumulators);
  return run<Device>(datapath, {conv_forward(s, xa.operand, wa.operand, out.mutable_data_ptr())}, accumulators, count,
                     out);
}

template <typename Device>
Result conv2d_input_gradient(Tensor dy, Tensor dy_scale, Tensor w, Tensor w_scale, int64_t dy_bits, int64_t w_bits,
                             Ints input_size, Ints stride, Ints padding, Ints dilation, int64_t groups, Ints datapath,
                             bool accumulators, bool count) {
  const ConvArgument da(dy, dy_scale, operand_format(datapath, dy_bits), "dy");
  const ConvArgument wa(w, w_scale, operand_format(datapath, w_bits), "w");
  check_device(w, dy, "w");
  const ConvShape s = conv_shape(input_size, sizes_of(w), stride, padding, dilation, groups);
  require(dy.size(1) == s.out_channels && dy.size(2) == s.out_h && dy.size(3) == s.out_w, "dy's shape is off");
  Tensor out = new_output(dy, input_size, accumulators);
  const int vector_size = decode_datapath(datapath).vector_size;
  return run<Device>(datapath,
                     conv_input_gradient(s, da.operand, wa.operand, out.mutable_data_ptr(), vector_size, count),
                     accumulators, count, out);
}

template <typename Device>
Result conv2d_weight_gradient(Tensor dy, Tensor dy_scale, Tensor x, Tensor x_scale, int64_t dy_bits, int64_t x_bits,
                              Ints kernel_size, Ints stride, Ints padding, Ints dilation, int64_t groups, Ints datapath,
                              bool accumulators, bool count) {
  const ConvArgument da(dy, dy_scale, operand_format(datapath, dy_bits), "dy");
  const ConvArgument xa(x, x_scale, operand_format(datapath, x_bits), "x");
  check_device(x, dy, "x");
  require(kernel_size.size() == 2, "kernel_size must hold 2 integers");
  const Ints weight = {dy.size(1), x.size(1) / groups, kernel_size[0], kernel_size[1]};
  const ConvShape s = conv_shape(sizes_of(x), weight, stride, padding, dilation, groups);
  require(dy.size(0) == s.batch && dy.size(2) == s.out_h && dy.size(3) == s.out_w, "dy's shape is off");
  Tensor out = new_output(dy, weight, accumulators);
  return run<Device>(datapath, {conv_weight_gradient(s, da.operand, xa.operand, out.mutable_data_ptr())}, accumulators,
                     count, out);
}

}  // namespace lns::ops
