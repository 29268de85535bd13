// The elementwise operators, the same for every device: checks, outputs, and the call of the device's kernel. `Device`
// is a class with one static function per kernel, see ops/cpu and ops/cuda.
#pragma once

#include <torch/csrc/stable/library.h>

#include "core/float8.h"
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

// Of x, with a random state.
inline QuantizerChoice checked_choice(const Tensor& x, int64_t bits, int64_t gamma, int64_t rounding, int64_t underflow,
                                      const Rng& rng, const std::vector<int64_t>& thresholds) {
  const QuantizerChoice q = {.format = make_format(bits, gamma),
                             .rounding = as_rounding(rounding),
                             .underflow = as_underflow(underflow),
                             .thresholds = thresholds};
  check_float(x, x, "x");
  check_rng(rng, x, q.draws());
  require(thresholds.empty() || q.rounding == Rounding::nearest, "thresholds are for rounding to nearest");
  return q;
}

template <typename Device>
std::tuple<Tensor, Tensor> quantize(Tensor x, int64_t bits, int64_t gamma, std::optional<int64_t> dim, int64_t rounding,
                                    int64_t underflow, Rng rng, std::vector<int64_t> thresholds) {
  const QuantizerChoice q = checked_choice(x, bits, gamma, rounding, underflow, rng, thresholds);
  const Slices slices = slices_of(x, dim);
  std::vector<int64_t> scale_sizes(dim ? x.dim() : 0, 1);
  if (dim) scale_sizes[*dim] = x.size(*dim);
  Tensor codes = new_tensor(x, sizes_of(x), code_type(q.format));
  Tensor scale = new_tensor(x, scale_sizes, ScalarType::Float);
  Device::quantize(q, rng, x, slices, codes, scale);
  return {codes, scale};
}

template <typename Device>
std::tuple<Tensor, Tensor> quantized_values(Tensor x, int64_t bits, int64_t gamma, int64_t rounding, int64_t underflow,
                                            Rng rng, std::vector<int64_t> thresholds) {
  const QuantizerChoice q = checked_choice(x, bits, gamma, rounding, underflow, rng, thresholds);
  Tensor values = new_tensor(x, sizes_of(x), ScalarType::Float), scale = new_tensor(x, {}, ScalarType::Float);
  Device::quantized_values(q, rng, x, values, scale);
  return {values, scale};
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
Tensor largest_magnitude(Tensor x) {
  check_float(x, x, "x");
  Tensor top = new_tensor(x, {}, ScalarType::Float);
  Device::largest_magnitude(torch::stable::contiguous(x), top);
  return top;
}

template <typename Device>
Tensor scale_to_largest(Tensor x, double largest) {
  check_float(x, x, "x");
  require(largest > 0, "largest must be positive");
  Tensor scale = new_tensor(x, {}, ScalarType::Float);
  Device::scale_to_largest(torch::stable::contiguous(x), largest, scale);
  return scale;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> quantize_integers(Tensor x, std::optional<int64_t> dim, int64_t top, int64_t groups,
                                                     bool zero_point, bool values, Rng rng) {
  check_float(x, x, "x");
  check_rng(rng, x, false);
  require(top >= 1 && top <= 255, "top must be between 1 and 255, got ", top);
  require(groups >= 1 && groups <= 8, "groups must be between 1 and 8, got ", groups);
  require(!values || (groups == 1 && !zero_point && !rng), "values are of nearest symmetric codes without shifts");
  const IntegerGrid g = {.top = static_cast<int>(top), .groups = static_cast<int>(groups), .zero_point = zero_point};
  const Slices slices = slices_of(x, dim);
  Tensor out = new_tensor(x, sizes_of(x),
                          values              ? ScalarType::Float
                          : g.largest() < 128 ? ScalarType::Char
                                              : ScalarType::Short);
  Tensor scale = new_tensor(x, {}, ScalarType::Float), shifts = new_tensor(x, {slices.slices}, ScalarType::Int);
  Device::quantize_integers(g, values, rng, torch::stable::contiguous(x), slices, out, scale, shifts);
  return {out, scale, shifts};
}

// Of a scale that is one number.
inline void check_one_scale(const Tensor& scale, const Tensor& first) {
  check_float(scale, first, "scale");
  require(scale.numel() == 1, "scale must be one number");
}

template <typename Device>
Tensor quantize_float8(Tensor x, Tensor scale, bool e5m2) {
  check_float(x, x, "x");
  check_one_scale(scale, x);
  Tensor codes = new_tensor(x, sizes_of(x), ScalarType::Byte);
  Device::quantize_float8(e5m2, torch::stable::contiguous(x), scale, codes);
  return codes;
}

template <typename Device>
Tensor dequantize_float8(Tensor codes, Tensor scale, bool e5m2) {
  check_tensor(codes, ScalarType::Byte, codes, "codes");
  check_one_scale(scale, codes);
  Tensor out = new_tensor(codes, sizes_of(codes), ScalarType::Float);
  Device::dequantize_float8(e5m2, torch::stable::contiguous(codes), scale, out);
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
