// CPU implementations of the elementwise operators.
#include "cpu/elementwise.h"

#include <torch/csrc/stable/library.h>

#include "ops/arguments.h"

namespace lns::ops {

namespace {

using torch::stable::contiguous;

std::tuple<Tensor, Tensor> quantize(Tensor x, int64_t bits, int64_t gamma, std::optional<int64_t> dim, int64_t rounding,
                                    int64_t underflow, std::optional<Tensor> rng) {
  check_float(x, "x");
  const Format f = make_format(bits, gamma);
  const Quantizer q = quantizer_tables(f.gamma).view(f, static_cast<Rounding>(rounding), static_cast<Underflow>(underflow));
  const Tensor source = contiguous(x);
  Tensor codes = new_tensor(x, sizes_of(x), code_type(f));
  std::vector<int64_t> scale_sizes;
  if (dim) {
    scale_sizes.assign(x.dim(), 1);
    scale_sizes[*dim] = x.size(*dim);
  }
  Tensor scale = new_tensor(x, scale_sizes, ScalarType::Float);
  cpu::quantize(q, random_state(rng), source.const_data_ptr<float>(), slices_of(x, dim), codes.mutable_data_ptr(),
                scale.mutable_data_ptr<float>());
  return {codes, scale};
}

Tensor dequantize(Tensor codes, Tensor scale, int64_t bits, int64_t gamma) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, "codes");
  const cpu::Slices s = slices_of_scale(codes, scale);
  const Tensor source = contiguous(codes), scales = contiguous(scale);
  Tensor out = new_tensor(codes, sizes_of(codes), ScalarType::Float);
  cpu::dequantize({source.const_data_ptr(), f}, quantizer_tables(f.gamma), scales.const_data_ptr<float>(), s,
                  out.mutable_data_ptr<float>());
  return out;
}

Tensor rescale(Tensor codes, Tensor scale, Tensor new_scale, int64_t bits, int64_t gamma, int64_t underflow,
               std::optional<Tensor> rng) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, "codes");
  STD_TORCH_CHECK(scale.numel() == new_scale.numel(), "scale and new_scale must have the same shape");
  const cpu::Slices s = slices_of_scale(codes, scale);
  check_float(new_scale, "new_scale");
  const Quantizer q = quantizer_tables(f.gamma).view(f, Rounding::nearest, static_cast<Underflow>(underflow));
  const Tensor source = contiguous(codes), from = contiguous(scale), to = contiguous(new_scale);
  Tensor out = new_tensor(codes, sizes_of(codes), code_type(f));
  cpu::rescale(q, random_state(rng), source.const_data_ptr(), from.const_data_ptr<float>(), to.const_data_ptr<float>(),
               s, out.mutable_data_ptr());
  return out;
}

std::tuple<Tensor, Tensor> forward_codes(Tensor codes, Tensor scale, int64_t update_bits, int64_t update_gamma,
                                         int64_t bits, int64_t gamma) {
  const Format update = make_format(update_bits, update_gamma), forward = make_format(bits, gamma);
  check_codes(codes, update, "codes");
  STD_TORCH_CHECK(update.gamma >= forward.gamma, "the update format's gamma must be at least the forward format's");
  const cpu::Slices s = slices_of_scale(codes, scale);
  const Tensor source = contiguous(codes), scales = contiguous(scale);
  Tensor out = new_tensor(codes, sizes_of(codes), code_type(forward));
  Tensor out_scale = new_tensor(codes, sizes_of(scale), ScalarType::Float);
  cpu::forward_codes(forward, {source.const_data_ptr(), update}, scales.const_data_ptr<float>(), s,
                     out.mutable_data_ptr(), out_scale.mutable_data_ptr<float>());
  return {out, out_scale};
}

void madam_step(Tensor codes, Tensor moment, Tensor grad, Tensor scale, Tensor cap, Tensor hyper, int64_t bits,
                int64_t gamma, bool stochastic, std::optional<Tensor> rng) {
  const Format f = make_format(bits, gamma);
  check_codes(codes, f, "codes");
  check_float(moment, "moment");
  check_float(grad, "grad");
  check_float(cap, "cap");
  check_float(hyper, "hyper");
  STD_TORCH_CHECK(codes.is_contiguous() && moment.is_contiguous(), "codes and moment must be contiguous");
  STD_TORCH_CHECK(moment.numel() == codes.numel() && grad.numel() == codes.numel() && cap.numel() == scale.numel() &&
                      hyper.numel() == 5,
                  "moment and grad must have the shape of codes, cap that of scale, and hyper 5 entries");
  const Quantizer q = quantizer_tables(f.gamma).view(f, Rounding::nearest, Underflow::clamp);
  const Tensor g = contiguous(grad), h = contiguous(hyper), scales = contiguous(scale), caps = contiguous(cap);
  const float* v = h.const_data_ptr<float>();
  cpu::madam_step(q, {v[0], v[1], v[2], v[3], v[4], stochastic}, random_state(rng), codes.mutable_data_ptr(),
                  scales.const_data_ptr<float>(), g.const_data_ptr<float>(), moment.mutable_data_ptr<float>(),
                  caps.const_data_ptr<float>(), slices_of_scale(codes, scale));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CPU, m) {
  m.impl("quantize", TORCH_BOX(&quantize));
  m.impl("dequantize", TORCH_BOX(&dequantize));
  m.impl("rescale", TORCH_BOX(&rescale));
  m.impl("forward_codes", TORCH_BOX(&forward_codes));
  m.impl("madam_step", TORCH_BOX(&madam_step));
}

}  // namespace lns::ops
