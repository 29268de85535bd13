// The schemas of every operator. Implementations register per device beside this; fake kernels are in lns_sim/ops.
//
// Codes come with float32 scales: a 0-d scale for the whole tensor, or one of the tensor's rank with a single dimension
// larger than 1. `datapath` is [bits, gamma, vector_size, lut_entries, lut_bits, acc_bits, acc_lsb, rounding, overflow,
// lowest and highest product exponent, what becomes of products below, bits of a bin or 0, overflow of a bin], then LUT
// constants where they are given; `rng` an int64 tensor [seed, step, tensor id, first element], `counters` an int64
// tensor [saturations, vectors, zero lanes, vanished] that is empty unless `count` asks for it.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lns_sim, m) {
  m.def(
      "quantize(Tensor x, int bits, int gamma, int? dim, int rounding, int underflow, Tensor? rng, "
      "int[] thresholds=[]) -> (Tensor codes, Tensor scale)");
  m.def("dequantize(Tensor codes, Tensor scale, int bits, int gamma) -> Tensor");
  m.def(
      "rescale(Tensor codes, Tensor scale, Tensor new_scale, int bits, int gamma, int underflow, Tensor? rng) -> "
      "Tensor");
  m.def("uniform(Tensor like, Tensor rng) -> Tensor");
  m.def(
      "luq(Tensor x, Tensor top, int exponents, bool stochastic_below, bool stochastic_above, Tensor? rng) -> Tensor");
  m.def(
      "forward_codes(Tensor codes, Tensor scale, int update_bits, int update_gamma, int bits, int gamma) "
      "-> (Tensor codes, Tensor scale)");
  // a (..., M, K) with a_scale (..., M, 1), b (..., K, N) with b_scale (..., 1, N), equal batch dimensions.
  m.def(
      "matmul(Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, int a_bits, int b_bits, int[] datapath, "
      "bool accumulators, bool count) -> (Tensor out, Tensor counters)");
  // Scales are 0-d or hold one entry per slice of the dimension named in csrc/cpu/convolution.h.
  m.def(
      "conv2d(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, int x_bits, int w_bits, int[] stride, int[] padding, "
      "int[] dilation, int groups, int[] datapath, bool accumulators, bool count) -> (Tensor out, Tensor counters)");
  m.def(
      "conv2d_input_gradient(Tensor dy, Tensor dy_scale, Tensor w, Tensor w_scale, int dy_bits, int w_bits, "
      "int[] input_size, int[] stride, int[] padding, int[] dilation, int groups, int[] datapath, bool accumulators, "
      "bool count) -> (Tensor out, Tensor counters)");
  m.def(
      "conv2d_weight_gradient(Tensor dy, Tensor dy_scale, Tensor x, Tensor x_scale, int dy_bits, int x_bits, "
      "int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups, int[] datapath, bool accumulators, "
      "bool count) -> (Tensor out, Tensor counters)");
  // hyper: float32 [beta, 1 - beta, bias correction, gradient bound, codes per unit]; cap: the largest magnitude
  // allowed, shaped like scale.
  m.def(
      "madam_step(Tensor(a!) codes, Tensor(b!) moment, Tensor grad, Tensor scale, Tensor cap, Tensor hyper, int bits, "
      "int gamma, bool stochastic, Tensor? rng) -> ()");
}
