// The elementwise operators, the same for every device: checks, outputs, and the call of the device's kernel. `Device`
// is a class with one static function per kernel, see ops/cpu and ops/cuda.
#pragma once

#include <torch/csrc/stable/library.h>

#include "core/luq.h"
#include "core/madam.h"
#include "core/rescale.h"
#include "ops/arguments.h"

namespace lns::ops {

using Rng = std::optional<Tensor>;

// What a quantizing kernel is told.
struct QuantizerChoice {
  Format format;
  Rounding rounding;
  Underflow underflow;
  std::vector<int64_t> thresholds = {};  // none: the format's
};

template <typename Device>
std::tuple<Tensor, Tensor> quantize(Tensor x, int64_t bits, int64_t gamma, std::optional<int64_t> dim, int64_t rounding,
                                    int64_t underflow, Rng rng, std::vector<int64_t> thresholds) {
  check_float(x, "x");
  check_rng(rng, x);
  const QuantizerChoice q = {make_format(bits, gamma), static_cast<Rounding>(rounding),
                             static_cast<Underflow>(underflow), thresholds};
  require(thresholds.empty() || q.rounding == Rounding::nearest, "thresholds are for rounding to nearest");
  const Tensor source = torch::stable::contiguous(x);
  Tensor codes = new_tensor(x, sizes_of(x), code_type(q.format));
  std::vector<int64_t> scale_sizes;
  if (dim) {
    scale_sizes.assign(x.dim(), 1);
    scale_sizes[*dim] = x.size(*dim);
  }
  Tensor scale = new_tensor(x, scale_sizes, ScalarType::Float);
  Device::quantize(q, rng, source, slices_of(x, dim), codes, scale);
  return {codes, scale};
}

template <typename Device>
Tensor dequantize(Tensor codes, Tensor scale, int64_t bits, int64_t gamma) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, "codes");
  const Slices s = slices_of_scale(codes, scale);
  Tensor out = new_tensor(codes, sizes_of(codes), ScalarType::Float);
  Device::dequantize(f, torch::stable::contiguous(codes), torch::stable::contiguous(scale), s, out);
  return out;
}

template <typename Device>
Tensor rescale(Tensor codes, Tensor scale, Tensor new_scale, int64_t bits, int64_t gamma, int64_t underflow, Rng rng) {
  const QuantizerChoice q = {make_format(bits, gamma), Rounding::nearest, static_cast<Underflow>(underflow)};
  check_codes(codes, q.format, "codes");
  check_rng(rng, codes);
  require(scale.numel() == new_scale.numel(), "scale and new_scale must have the same shape");
  const Slices s = slices_of_scale(codes, scale);
  check_float(new_scale, "new_scale");
  check_device(new_scale, codes, "new_scale");
  Tensor out = new_tensor(codes, sizes_of(codes), code_type(q.format));
  Device::rescale(q, rng, torch::stable::contiguous(codes), torch::stable::contiguous(scale),
                  torch::stable::contiguous(new_scale), s, out);
  return out;
}

template <typename Device>
std::tuple<Tensor, Tensor> forward_codes(Tensor codes, Tensor scale, int64_t update_bits, int64_t update_gamma,
                                         int64_t bits, int64_t gamma) {
  const Format update = make_format(update_bits, update_gamma), forward = make_format(bits, gamma);
  check_codes(codes, update, "codes");
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
  check_rng(rng, like);
  Tensor out = new_tensor(like, sizes_of(like), ScalarType::Float);
  Device::uniform(rng, out);
  return out;
}

template <typename Device>
Tensor luq(Tensor x, Tensor top, int64_t exponents, bool stochastic_below, bool stochastic_above, Rng rng) {
  check_float(x, "x");
  check_float(top, "top");
  check_device(top, x, "top");
  check_rng(rng, x);
  require(top.numel() == 1, "top must be one number");
  require(exponents >= 1 && exponents <= 126, "exponents must be between 1 and 126");
  require(rng.has_value() || !(stochastic_below || stochastic_above), "stochastic rounding needs rng");
  Tensor out = new_tensor(x, sizes_of(x), ScalarType::Float);
  Device::luq(torch::stable::contiguous(x), top, static_cast<int>(exponents), stochastic_below, stochastic_above, rng,
              out);
  return out;
}

template <typename Device>
void madam_step(Tensor codes, Tensor moment, Tensor grad, Tensor scale, Tensor cap, Tensor hyper, int64_t bits,
                int64_t gamma, bool stochastic, Rng rng) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, "codes");
  check_rng(rng, codes);
  struct Named {
    const Tensor& tensor;
    const char* name;
  };
  for (const auto& [t, name] : {Named{moment, "moment"}, {grad, "grad"}, {cap, "cap"}, {hyper, "hyper"}}) {
    check_float(t, name);
    check_device(t, codes, name);
  }
  require(codes.is_contiguous() && moment.is_contiguous(), "codes and moment must be contiguous");
  require(moment.numel() == codes.numel() && grad.numel() == codes.numel() && cap.numel() == scale.numel() &&
              hyper.numel() == 5,
          "moment and grad must have the shape of codes, cap that of scale, and hyper 5 entries");
  Device::madam_step(f, stochastic, rng, codes, torch::stable::contiguous(scale), torch::stable::contiguous(grad),
                     moment, torch::stable::contiguous(cap), torch::stable::contiguous(hyper),
                     slices_of_scale(codes, scale));
}

}  // namespace lns::ops
