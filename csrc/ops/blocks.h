// The elementwise operators of tensors with block scales, the same for every device; as ops/elementwise.h.
#pragma once

#include "core/blocks.h"
#include "ops/elementwise.h"

namespace lns::ops {

constexpr int64_t kMostShift = 127;

inline Blocks blocks_of(const Tensor& x, int64_t dim, int64_t block) {
  require(dim >= 0 && dim < x.dim(), "dim is out of range: ", dim);
  require(block > 0, "a block has at least one element, got ", block);
  Blocks b = {.outer = 1, .n = x.size(dim), .inner = 1, .block = block};
  for (int64_t d = 0; d < dim; ++d) b.outer *= x.size(d);
  for (int64_t d = dim + 1; d < x.dim(); ++d) b.inner *= x.size(d);
  return b;
}
inline std::vector<int64_t> shift_sizes(const Tensor& x, int64_t dim, const Blocks& b) {
  std::vector<int64_t> sizes = sizes_of(x);
  sizes[dim] = b.along();
  return sizes;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> quantize_blocks(Tensor x, int64_t bits, int64_t gamma, int64_t dim, int64_t block,
                                                   int64_t most, int64_t rounding, int64_t underflow, Rng rng,
                                                   std::vector<int64_t> thresholds) {
  const QuantizerChoice q = {.format = make_format(bits, gamma),
                             .rounding = as_rounding(rounding),
                             .underflow = as_underflow(underflow),
                             .thresholds = thresholds};
  check_float(x, x, "x");
  check_rng(rng, x, q.draws());
  require(thresholds.empty() || q.rounding == Rounding::nearest, "thresholds are for rounding to nearest");
  require(most >= 0 && most <= kMostShift, "a shift is between 0 and ", kMostShift, ", got ", most);
  const Blocks b = blocks_of(x, dim, block);
  Tensor codes = new_tensor(x, sizes_of(x), code_type(q.format)), scale = new_tensor(x, {}, ScalarType::Float);
  Tensor shifts = new_tensor(x, shift_sizes(x, dim, b), ScalarType::Byte);
  Device::quantize_blocks(q, rng, torch::stable::contiguous(x), b, static_cast<int>(most), codes, scale, shifts);
  return {codes, scale, shifts};
}

template <typename Device>
Tensor dequantize_blocks(Tensor codes, Tensor scale, Tensor shifts, int64_t dim, int64_t block, int64_t bits,
                         int64_t gamma) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, codes, "codes");
  check_float(scale, codes, "scale");
  check_tensor(shifts, ScalarType::Byte, codes, "shifts");
  const Blocks b = blocks_of(codes, dim, block);
  require(scale.numel() == 1 && sizes_of(shifts) == shift_sizes(codes, dim, b),
          "blocks have one scale and a shift each");
  Tensor out = new_tensor(codes, sizes_of(codes), ScalarType::Float);
  Device::dequantize_blocks(f, torch::stable::contiguous(codes), scale, torch::stable::contiguous(shifts), b, out);
  return out;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> forward_blocks(Tensor codes, Tensor scale, int64_t update_bits, int64_t update_gamma,
                                                  int64_t bits, int64_t gamma, int64_t dim, int64_t block,
                                                  int64_t most) {
  const Format update = make_format(update_bits, update_gamma), forward = make_format(bits, gamma);
  check_codes(codes, update, codes, "codes");
  check_float(scale, codes, "scale");
  require(scale.numel() == 1, "an update format's blocks have one scale");
  require(update.gamma >= forward.gamma, "the update format's gamma must be at least the forward format's");
  require(most >= 0 && most <= kMostShift, "a shift is between 0 and ", kMostShift, ", got ", most);
  const Blocks b = blocks_of(codes, dim, block);
  Tensor out = new_tensor(codes, sizes_of(codes), code_type(forward));
  Tensor out_scale = new_tensor(codes, {}, ScalarType::Float);
  Tensor shifts = new_tensor(codes, shift_sizes(codes, dim, b), ScalarType::Byte);
  Device::forward_blocks(forward, update, torch::stable::contiguous(codes), scale, b, static_cast<int>(most), out,
                         out_scale, shifts);
  return {out, out_scale, shifts};
}

}  // namespace lns::ops
