// The CPU's elementwise kernels behind the operators.
#include "cpu/elementwise.h"

#include "ops/elementwise.h"

namespace lns::ops {

namespace {

RandomState random_state(const Rng& rng) { return decode_random_state(rng ? rng->const_data_ptr<int64_t>() : nullptr); }

Quantizer view(const QuantizerChoice& q) {
  return quantizer_tables(q.format.gamma, q.thresholds).view(q.format, q.rounding, q.underflow);
}

struct Cpu {
  static void quantize(const QuantizerChoice& q, const Rng& rng, const Tensor& any, const Slices& s, Tensor& codes,
                       Tensor& scale) {
    const Tensor x = torch::stable::contiguous(any);
    cpu::quantize(view(q), random_state(rng), x.const_data_ptr<float>(), s, codes.mutable_data_ptr(),
                  scale.mutable_data_ptr<float>());
  }
  static void quantized_values(const QuantizerChoice& q, const Rng& rng, const Tensor& x, Tensor& values,
                               Tensor& scale) {
    Tensor codes = new_tensor(x, sizes_of(x), code_type(q.format));
    quantize(q, rng, x, whole(x.numel()), codes, scale);
    dequantize(q.format, codes, scale, whole(x.numel()), values);
  }
  static void dequantize(const Format& f, const Tensor& any, const Tensor& scale, const Slices& s, Tensor& out) {
    const Tensor codes = torch::stable::contiguous(any);
    cpu::dequantize({.data = codes.const_data_ptr(), .format = f}, quantizer_tables(f.gamma),
                    scale.const_data_ptr<float>(), s, out.mutable_data_ptr<float>());
  }
  static void rescale(const QuantizerChoice& q, const Rng& rng, const Tensor& codes, const Tensor& from,
                      const Tensor& to, const Slices& s, Tensor& out) {
    cpu::rescale(view(q), random_state(rng), codes.const_data_ptr(), from.const_data_ptr<float>(),
                 to.const_data_ptr<float>(), s, out.mutable_data_ptr());
  }
  static void uniform(const Tensor& rng, Tensor& out) {
    cpu::uniform(random_state(rng), out.numel(), out.mutable_data_ptr<float>());
  }
  static void round_to_powers(const PowerRounding& r, const Tensor& x, const Tensor& top, const Rng& rng, Tensor& out) {
    cpu::round_to_powers(r, top.const_data_ptr<float>(), random_state(rng), x.const_data_ptr<float>(), x.numel(),
                         out.mutable_data_ptr<float>());
  }
  static void largest_magnitude(const Tensor& x, Tensor& top) {
    cpu::largest_magnitude(x.const_data_ptr<float>(), x.numel(), top.mutable_data_ptr<float>());
  }
  static void scale_to_largest(const Tensor& x, double largest, Tensor& scale) {
    cpu::scale_to_largest(x.const_data_ptr<float>(), x.numel(), largest, scale.mutable_data_ptr<float>());
  }
  static void quantize_integers(const IntegerGrid& g, bool values, const Rng& rng, const Tensor& x, const Slices& s,
                                Tensor& out, Tensor& scale, Tensor& shifts) {
    const RandomState random = random_state(rng);
    cpu::quantize_integers(g, values, rng ? &random : nullptr, x.const_data_ptr<float>(), s, out.mutable_data_ptr(),
                           scale.mutable_data_ptr<float>(), shifts.mutable_data_ptr<int32_t>());
  }
  static void quantize_float8(bool e5m2, const Tensor& x, const Tensor& scale, Tensor& codes) {
    cpu::quantize_float8(e5m2, scale.const_data_ptr<float>(), x.const_data_ptr<float>(), x.numel(),
                         codes.mutable_data_ptr<uint8_t>());
  }
  static void dequantize_float8(bool e5m2, const Tensor& codes, const Tensor& scale, Tensor& out) {
    cpu::dequantize_float8(e5m2, codes.const_data_ptr<uint8_t>(), scale.const_data_ptr<float>(), codes.numel(),
                           out.mutable_data_ptr<float>());
  }
  static void forward_codes(const Format& forward, const Format& update, const Tensor& codes, const Tensor& scale,
                            const Slices& s, Tensor& out, Tensor& out_scale) {
    cpu::forward_codes(forward, {.data = codes.const_data_ptr(), .format = update}, scale.const_data_ptr<float>(), s,
                       out.mutable_data_ptr(), out_scale.mutable_data_ptr<float>());
  }
  static void madam_step(const Format& f, bool stochastic, const Rng& rng, Tensor& codes, const Tensor& scale,
                         const Tensor& grad, Tensor& moment, const Tensor& cap, const Tensor& hyper, const Slices& s) {
    cpu::madam_step(view({.format = f}), decode_madam(hyper.const_data_ptr<float>(), stochastic), random_state(rng),
                    codes.mutable_data_ptr(), scale.const_data_ptr<float>(), grad.const_data_ptr<float>(),
                    moment.mutable_data_ptr<float>(), cap.const_data_ptr<float>(), s);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CPU, m) {
  m.impl("quantize", TORCH_BOX(&quantize<Cpu>));
  m.impl("quantized_values", TORCH_BOX(&quantized_values<Cpu>));
  m.impl("dequantize", TORCH_BOX(&dequantize<Cpu>));
  m.impl("rescale", TORCH_BOX(&rescale<Cpu>));
  m.impl("forward_codes", TORCH_BOX(&forward_codes<Cpu>));
  m.impl("uniform", TORCH_BOX(&uniform<Cpu>));
  m.impl("round_to_powers", TORCH_BOX(&round_to_powers<Cpu>));
  m.impl("largest_magnitude", TORCH_BOX(&largest_magnitude<Cpu>));
  m.impl("scale_to_largest", TORCH_BOX(&scale_to_largest<Cpu>));
  m.impl("quantize_integers", TORCH_BOX(&quantize_integers<Cpu>));
  m.impl("quantize_float8", TORCH_BOX(&quantize_float8<Cpu>));
  m.impl("dequantize_float8", TORCH_BOX(&dequantize_float8<Cpu>));
  m.impl("madam_step", TORCH_BOX(&madam_step<Cpu>));
}

}  // namespace lns::ops
