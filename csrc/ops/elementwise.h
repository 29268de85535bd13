// The elementwise operators, the same for every device: checks, outputs, and the call of the device's kernel. `Device`
// is a class with one static function per kernel, see ops/cpu and ops/cuda.
#pragma once

#include <torch/csrc/stable/library.h>

#include "core/madam.h"
#include "core/powers_of_two.h"
#include "core/rescale.h"
#include "ops/arguments.h"

namespace lns::ops {

// What a quantizing kernel is told.
struct QuantizerChoice {
  Format format;
  Rounding rounding = Rounding::nearest;
  Underflow underflow = Underflow::clamp;
  std::vector<int64_t> thresholds = {};  // none: the format's

  bool draws() const { return rounding == Rounding::stochastic || underflow == Underflow::stochastic; }
};

template <typename Device>
std::tuple<Tensor, Tensor> quantize(Tensor x, int64_t bits, int64_t gamma, std::optional<int64_t> dim, int64_t rounding,
                                    int64_t underflow, Rng rng, std::vector<int64_t> thresholds) {
  const QuantizerChoice q = {.format = make_format(bits, gamma),
                             .rounding = as_rounding(rounding),
                             .underflow = as_underflow(underflow),
                             .thresholds = thresholds};
  check_float(x, x, "x");
  check_rng(rng, x, q.draws());
  require(thresholds.empty() || q.rounding == Rounding::nearest, "thresholds are for rounding to nearest");
  const Slices slices = slices_of(x, dim);
  std::vector<int64_t> scale_sizes(dim ? x.dim() : 0, 1);
  if (dim) scale_sizes[*dim] = x.size(*dim);
  Tensor codes = new_tensor(x, sizes_of(x), code_type(q.format));
  Tensor scale = new_tensor(x, scale_sizes, ScalarType::Float);
  Device::quantize(q, rng, torch::stable::contiguous(x), slices, codes, scale);
  return {codes, scale};
}

template <typename Device>
Tensor dequantize(Tensor codes, Tensor scale, int64_t bits, int64_t gamma) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, codes, "codes");
  const Slices s = slices_of_scale(codes, scale);
  Tensor out = new_tensor(codes, sizes_of(codes), ScalarType::Float);
  Device::dequantize(f, codes, torch::stable::contiguous(scale), s, out);
  return out;
}

template <typename Device>
Tensor rescale(Tensor codes, Tensor scale, Tensor new_scale, int64_t bits, int64_t gamma, int64_t underflow, Rng rng) {
  const QuantizerChoice q = {.format = make_format(bits, gamma), .underflow = as_underflow(underflow)};
  check_codes(codes, q.format, codes, "codes");
  check_rng(rng, codes, q.draws());
  const Slices s = slices_of_scale(codes, scale);
  check_float(new_scale, codes, "new_scale");
  check_same_shape(new_scale, scale, "new_scale", "scale");
  Tensor out = new_tensor(codes, sizes_of(codes), code_type(q.format));
  Device::rescale(q, rng, torch::stable::contiguous(codes), torch::stable::contiguous(scale),
                  torch::stable::contiguous(new_scale), s, out);
  return out;
}

template <typename Device>
std::tuple<Tensor, Tensor> forward_codes(Tensor codes, Tensor scale, int64_t update_bits, int64_t update_gamma,
                                         int64_t bits, int64_t gamma) {
  const Format update = make_format(update_bits, update_gamma), forward = make_format(bits, gamma);
  check_codes(codes, update, codes, "codes");
  require(update.gamma >= forward.gamma, "the update format's gamma must be at least the forward format's");
  const Slices s = slices_of_scale(codes, scale);
  Tensor out = new_tensor(codes, sizes_of(codes), code_type(forward));
  Tensor out_scale = new_tensor(codes, sizes_of(scale), ScalarType::Float);
  Device::forward_codes(forward, update, torch::stable::contiguous(codes), torch::stable::contiguous(scale), s, out,
                        out_scale);
  return {out, out_scale};
}

template <typename Device>
Tensor uniform(Tensor like, Tensor rng) {
  check_rng(rng, like, true);
  Tensor out = new_tensor(like, sizes_of(like), ScalarType::Float);
  Device::uniform(rng, out);
  return out;
}

template <typename Device>
Tensor round_to_powers(Tensor x, Tensor top, int64_t octaves, bool stochastic_below, bool stochastic_above, Rng rng) {
  check_float(x, x, "x");
  check_float(top, x, "top");
  require(top.numel() == 1, "top must be one number");
  require(octaves >= 0 && octaves <= 126, "octaves must be between 0 and 126, got ", octaves);
  const PowerRounding r = {
      .octaves = static_cast<int>(octaves), .stochastic_below = stochastic_below, .stochastic_above = stochastic_above};
  check_rng(rng, x, r.draws());
  Tensor out = new_tensor(x, sizes_of(x), ScalarType::Float);
  Device::round_to_powers(r, torch::stable::contiguous(x), top, rng, out);
  return out;
}

template <typename Device>
void madam_step(Tensor codes, Tensor moment, Tensor grad, Tensor scale, Tensor cap, Tensor hyper, int64_t bits,
                int64_t gamma, bool stochastic, Rng rng) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, codes, "codes");
  check_float(moment, codes, "moment");
  check_float(grad, codes, "grad");
  check_float(cap, codes, "cap");
  check_float(hyper, codes, "hyper");
  check_rng(rng, codes, stochastic);
  const Slices s = slices_of_scale(codes, scale);
  check_same_shape(moment, codes, "moment", "codes");
  check_same_shape(grad, codes, "grad", "codes");
  check_same_shape(cap, scale, "cap", "scale");
  require(hyper.numel() == std::ssize(kMadamFields), "hyper must hold ", std::ssize(kMadamFields), " numbers");
  require(codes.is_contiguous() && moment.is_contiguous(), "codes and moment must be contiguous");
  check_apart(codes, {&moment, &grad, &scale, &cap, &hyper}, "codes");
  check_apart(moment, {&grad, &scale, &cap, &hyper}, "moment");
  Device::madam_step(f, stochastic, rng, codes, torch::stable::contiguous(scale), torch::stable::contiguous(grad),
                     moment, torch::stable::contiguous(cap), torch::stable::contiguous(hyper), s);
}

}  // namespace lns::ops
