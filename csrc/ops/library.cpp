// The schemas of every operator. Implementations register per device beside this; fake kernels are in lns_sim/ops.
//
// Codes come with float32 scales: a 0-d scale for the whole tensor, or one of the tensor's rank with a single dimension
// larger than 1. core/encoding.h says what the numbers of `datapath`, of `rng` (int64) and of `hyper` (float32) are;
// `counters` is a gemm/product.h Counters in int64, empty unless `count` asks for it. Operands' gammas are the
// datapath's where they are 0.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lns_sim, m) {
  m.def(
      "quantize(Tensor x, int bits, int gamma, int? dim, int rounding, int underflow, Tensor? rng, "
      "int[] thresholds=[]) -> (Tensor codes, Tensor scale)");
  // What the codes of one scale stand for instead.
  m.def(
      "quantized_values(Tensor x, int bits, int gamma, int rounding, int underflow, Tensor? rng, int[] thresholds=[]) "
      "-> (Tensor values, Tensor scale)");
  m.def("dequantize(Tensor codes, Tensor scale, int bits, int gamma) -> Tensor");
  m.def(
      "rescale(Tensor codes, Tensor scale, Tensor new_scale, int bits, int gamma, int underflow, Tensor? rng) -> "
      "Tensor");
  // One scale, and blocks of elements along `dim` with a shift each, up to `most`; uint8 shifts of the codes' sizes,
  // but for that of `dim`.
  m.def(
      "quantize_blocks(Tensor x, int bits, int gamma, int dim, int block, int most, int rounding, int underflow, "
      "Tensor? rng, int[] thresholds=[]) -> (Tensor codes, Tensor scale, Tensor shifts)");
  m.def(
      "dequantize_blocks(Tensor codes, Tensor scale, Tensor shifts, int dim, int block, int bits, int gamma) -> "
      "Tensor");
  m.def(
      "forward_blocks(Tensor codes, Tensor scale, int update_bits, int update_gamma, int bits, int gamma, int dim, "
      "int block, int most) -> (Tensor codes, Tensor scale, Tensor shifts)");
  // (images, channels, height, width) as (height, channels, width, images), with so many zeros at each end of height
  // and width; of codes or shifts.
  m.def("images_fastest(Tensor codes, int above, int beside) -> Tensor");
  m.def("uniform(Tensor like, Tensor rng) -> Tensor");
  // Powers of two from top / 2^octaves to top, or zero; `stochastic_below` the least one, and above it.
  m.def(
      "round_to_powers(Tensor x, Tensor top, int octaves, bool stochastic_below, bool stochastic_above, Tensor? rng) "
      "-> Tensor");
  // max|x|, and the scale at which it is `largest`: 1 of zeros, NaN where a number is not finite.
  m.def("largest_magnitude(Tensor x) -> Tensor");
  m.def("scale_to_largest(Tensor x, float largest) -> Tensor");
  // Codes from -top to top, with a zero point `top` from the least to the largest, int8 where they fit and else int16;
  // with `dim` each slice shifted by up to groups - 1 bits. `values`: float32 of the nearest codes instead.
  m.def(
      "quantize_integers(Tensor x, int? dim, int top, int groups, bool zero_point, bool values, Tensor? rng) -> "
      "(Tensor codes, Tensor scale, Tensor shifts)");
  // Numbers of x / scale in E4M3 or E5M2, as uint8; what is beyond the largest is that.
  m.def("quantize_float8(Tensor x, Tensor scale, bool e5m2) -> Tensor");
  m.def("dequantize_float8(Tensor codes, Tensor scale, bool e5m2) -> Tensor");
  m.def(
      "forward_codes(Tensor codes, Tensor scale, int update_bits, int update_gamma, int bits, int gamma) "
      "-> (Tensor codes, Tensor scale)");
  // Shifts are those of blocks of `block` elements along K, which is a multiple of the datapath's vector size; channels
  // of convolutions are whole blocks.
  // a (..., M, K) with a_scale (..., M, 1), b (..., K, N) with b_scale (..., 1, N), equal batch dimensions.
  m.def(
      "matmul(Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, int a_bits, int b_bits, int[] datapath, "
      "bool accumulators, bool count, int a_gamma=0, int b_gamma=0, Tensor? a_shifts=None, "
      "Tensor? b_shifts=None, int block=0) -> (Tensor out, Tensor counters)");
  // Scales are 0-d or hold one entry per slice of the dimension named in gemm/convolution.h.
  m.def(
      "conv2d(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, int x_bits, int w_bits, int[] stride, int[] padding, "
      "int[] dilation, int groups, int[] datapath, bool accumulators, bool count, int x_gamma=0, int w_gamma=0, "
      "Tensor? x_shifts=None, Tensor? w_shifts=None, int block=0) -> (Tensor out, Tensor counters)");
  m.def(
      "conv2d_input_gradient(Tensor dy, Tensor dy_scale, Tensor w, Tensor w_scale, int dy_bits, int w_bits, "
      "int[] input_size, int[] stride, int[] padding, int[] dilation, int groups, int[] datapath, bool accumulators, "
      "bool count, int dy_gamma=0, int w_gamma=0, Tensor? dy_shifts=None, Tensor? w_shifts=None, "
      "int block=0) -> (Tensor out, Tensor counters)");
  m.def(
      "conv2d_weight_gradient(Tensor dy, Tensor dy_scale, Tensor x, Tensor x_scale, int dy_bits, int x_bits, "
      "int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups, int[] datapath, bool accumulators, "
      "bool count, int dy_gamma=0, int x_gamma=0, Tensor? dy_shifts=None, Tensor? x_shifts=None, int block=0) -> "
      "(Tensor out, Tensor counters)");
  // Softmax of products * factor under a causal mask, (..., rows, seen) of `length` keys, straight to codes: query i of
  // a matrix sees the first `first + i + 1`. The scale of probabilities is given, and becomes NaN where one is.
  m.def(
      "causal_probabilities(Tensor products, float factor, int first, int length, Tensor(a!) scale, int bits, "
      "int gamma, int underflow, int[] thresholds) -> Tensor");
  // The same in place of the products, as what the codes stand for.
  m.def(
      "causal_probability_values(Tensor(a!) products, float factor, int first, int length, Tensor(b!) scale, int bits, "
      "int gamma, int underflow, int[] thresholds) -> ()");
  // Also its derivative, of gradients (..., rows, seen): codes (..., rows, length), errors at a scale of each row, 0
  // where it is all zero (probabilities may be float32 of products' shape, and the products themselves: then they
  // become what codes stand for); and rows, of queries 0 and on, moved to one scale, or what rows' codes stand for
  // there.
  m.def(
      "causal_errors(Tensor products, Tensor gradients, float factor, int first, Tensor scale, "
      "Tensor(a!) probabilities, Tensor(b!) errors, Tensor(c!) error_scales, int p_bits, int p_gamma, "
      "int p_underflow, int[] p_thresholds, int bits, int gamma, int underflow, int[] thresholds) -> ()");
  m.def("causal_rescale(Tensor(a!) codes, Tensor scales, Tensor scale, int bits, int gamma, int underflow) -> ()");
  m.def("causal_values(Tensor codes, Tensor scales, Tensor scale, int bits, int gamma, int underflow) -> Tensor");
  // cap: the largest magnitude allowed, shaped like scale.
  m.def(
      "madam_step(Tensor(a!) codes, Tensor(b!) moment, Tensor grad, Tensor scale, Tensor cap, Tensor hyper, int bits, "
      "int gamma, bool stochastic, Tensor? rng) -> ()");
}
