// The GPU's elementwise kernels behind the operators.
#include "cuda/elementwise.h"

#include <array>

#include "ops/cuda/quantizer.h"

namespace lns::ops {

namespace {

// Codes in rows of one scale, as they lie; none where they do not, or are wider than 8 bits.
std::optional<cuda::ByteRows> byte_rows(const Tensor& codes, const Slices& s) {
  if (s.slices != 1 || codes.element_size() != 1) return std::nullopt;
  const auto* data = static_cast<const uint8_t*>(codes.const_data_ptr());
  if (codes.is_contiguous()) return cuda::contiguous_rows(data, codes.numel());
  const int64_t last = codes.dim() - 1;
  if (last < 1 || codes.stride(last) != 1 || codes.size(last) > int64_t{1} << 30) return std::nullopt;
  cuda::ByteRows rows = {.codes = data, .n = codes.numel(), .length = static_cast<int>(codes.size(last))};
  int64_t d = last - 1;
  const auto together = [&](int64_t& stride) {  // dimensions that are one
    int64_t size = 1;
    for (; d >= 0 && (size == 1 || codes.size(d) == 1 || codes.stride(d) == stride * size); --d) {
      if (codes.size(d) > 1 && size == 1) stride = codes.stride(d);
      size *= codes.size(d);
    }
    return size;
  };
  rows.inner = together(rows.inner_stride);
  together(rows.outer_stride);
  return d < 0 ? std::optional(rows) : std::nullopt;
}

// Numbers as they lie, and the tensor that holds them: a copy where that is no matter of a few strides.
std::pair<cuda::FloatRuns, Tensor> float_runs(const Tensor& x, const Slices& s) {
  const auto contiguous = [&] {
    const Tensor copy = torch::stable::contiguous(x);
    return std::pair(cuda::FloatRuns{.x = copy.const_data_ptr<float>()}, copy);
  };
  if (s.slices != 1 || x.numel() == 0 || x.numel() >= int64_t{1} << 31 || x.is_contiguous()) return contiguous();
  std::array<int64_t, 4> sizes, strides;  // of the run, and of levels around it
  sizes.fill(1), strides.fill(0);
  size_t level = 0;
  strides[0] = 1;
  for (int64_t d = x.dim() - 1; d >= 0; --d) {
    if (x.size(d) == 1) continue;
    if (x.stride(d) != strides[level] * sizes[level]) {
      if (++level == sizes.size()) return contiguous();
      strides[level] = x.stride(d);
    }
    sizes[level] *= x.size(d);
  }
  if (sizes[0] % cuda::FloatRuns::kMultiple != 0) return contiguous();
  cuda::FloatRuns runs = {.x = x.const_data_ptr<float>(), .length = static_cast<uint32_t>(sizes[0])};
  for (int i = 0; i < 2; ++i) runs.sizes[i] = static_cast<uint32_t>(sizes[i + 1]);
  for (int i = 0; i < 3; ++i) runs.strides[i] = strides[i + 1];
  return {runs, x};
}

struct Cuda {
  static void quantize(const QuantizerChoice& q, const Rng& rng, const Tensor& any, const Slices& s, Tensor& codes,
                       Tensor& scale) {
    const DeviceCall call(any);
    const auto [runs, x] = float_runs(any, s);
    cuda::quantize(view(q, call.launch(), x), pointer(rng), runs, s, codes.mutable_data_ptr(),
                   scale.mutable_data_ptr<float>(), call.launch());
  }
  static void quantized_values(const QuantizerChoice& q, const Rng& rng, const Tensor& any, Tensor& values,
                               Tensor& scale) {
    const DeviceCall call(any);
    const auto [runs, x] = float_runs(any, whole(any.numel()));
    cuda::quantized_values(view(q, call.launch(), x), pointer(rng), runs, x.numel(), values.mutable_data_ptr<float>(),
                           scale.mutable_data_ptr<float>(), call.launch());
  }
  static void dequantize(const Format& f, const Tensor& any, const Tensor& scale, const Slices& s, Tensor& out) {
    const DeviceCall call(any);
    const Quantizer q = view({.format = f}, call.launch(), any);
    const auto* scales = scale.const_data_ptr<float>();
    if (const auto rows = byte_rows(any, s))
      return cuda::dequantize(*rows, f, q, scales, out.mutable_data_ptr<float>(), call.launch());
    const Tensor codes = torch::stable::contiguous(any);
    cuda::dequantize({.data = codes.const_data_ptr(), .format = f}, q, scales, s, out.mutable_data_ptr<float>(),
                     call.launch());
  }
  static void rescale(const QuantizerChoice& q, const Rng& rng, const Tensor& codes, const Tensor& from,
                      const Tensor& to, const Slices& s, Tensor& out) {
    const DeviceCall call(codes);
    cuda::rescale(view(q, call.launch(), codes), pointer(rng), codes.const_data_ptr(), from.const_data_ptr<float>(),
                  to.const_data_ptr<float>(), s, out.mutable_data_ptr(), call.launch());
  }
  static void uniform(const Tensor& rng, Tensor& out) {
    const DeviceCall call(out);
    cuda::uniform(rng.const_data_ptr<int64_t>(), out.numel(), out.mutable_data_ptr<float>(), call.launch());
  }
  static void round_to_powers(const PowerRounding& r, const Tensor& x, const Tensor& top, const Rng& rng, Tensor& out) {
    const DeviceCall call(x);
    cuda::round_to_powers(r, top.const_data_ptr<float>(), pointer(rng), x.const_data_ptr<float>(), x.numel(),
                          out.mutable_data_ptr<float>(), call.launch());
  }
  static void largest_magnitude(const Tensor& x, Tensor& top) {
    const DeviceCall call(x);
    cuda::largest_magnitude(x.const_data_ptr<float>(), x.numel(), top.mutable_data_ptr<float>(), call.launch());
  }
  static void scale_to_largest(const Tensor& x, double largest, Tensor& scale) {
    const DeviceCall call(x);
    cuda::scale_to_largest(x.const_data_ptr<float>(), x.numel(), largest, scale.mutable_data_ptr<float>(),
                           call.launch());
  }
  static void quantize_integers(const IntegerGrid& g, bool values, const Rng& rng, const Tensor& x, const Slices& s,
                                Tensor& out, Tensor& scale, Tensor& shifts) {
    const DeviceCall call(x);
    cuda::quantize_integers(g, values, pointer(rng), x.const_data_ptr<float>(), s, out.mutable_data_ptr(),
                            scale.mutable_data_ptr<float>(), shifts.mutable_data_ptr<int32_t>(), call.launch());
  }
  static void quantize_float8(bool e5m2, const Tensor& x, const Tensor& scale, Tensor& codes) {
    const DeviceCall call(x);
    cuda::quantize_float8(e5m2, scale.const_data_ptr<float>(), x.const_data_ptr<float>(), x.numel(),
                          codes.mutable_data_ptr<uint8_t>(), call.launch());
  }
  static void dequantize_float8(bool e5m2, const Tensor& codes, const Tensor& scale, Tensor& out) {
    const DeviceCall call(codes);
    cuda::dequantize_float8(e5m2, codes.const_data_ptr<uint8_t>(), scale.const_data_ptr<float>(), codes.numel(),
                            out.mutable_data_ptr<float>(), call.launch());
  }
  static void forward_codes(const Format& forward, const Format& update, const Tensor& codes, const Tensor& scale,
                            const Slices& s, Tensor& out, Tensor& out_scale) {
    const DeviceCall call(codes);
    cuda::forward_codes(forward, {.data = codes.const_data_ptr(), .format = update}, scale.const_data_ptr<float>(), s,
                        out.mutable_data_ptr(), out_scale.mutable_data_ptr<float>(), call.launch());
  }
  static void madam_step(const Format& f, bool stochastic, const Rng& rng, Tensor& codes, const Tensor& scale,
                         const Tensor& grad, Tensor& moment, const Tensor& cap, const Tensor& hyper, const Slices& s) {
    const DeviceCall call(codes);
    cuda::madam_step(view({.format = f}, call.launch(), codes), hyper.const_data_ptr<float>(), stochastic, pointer(rng),
                     codes.mutable_data_ptr(), scale.const_data_ptr<float>(), grad.const_data_ptr<float>(),
                     moment.mutable_data_ptr<float>(), cap.const_data_ptr<float>(), s, call.launch());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CUDA, m) {
  m.impl("quantize", TORCH_BOX(&quantize<Cuda>));
  m.impl("quantized_values", TORCH_BOX(&quantized_values<Cuda>));
  m.impl("dequantize", TORCH_BOX(&dequantize<Cuda>));
  m.impl("rescale", TORCH_BOX(&rescale<Cuda>));
  m.impl("forward_codes", TORCH_BOX(&forward_codes<Cuda>));
  m.impl("uniform", TORCH_BOX(&uniform<Cuda>));
  m.impl("round_to_powers", TORCH_BOX(&round_to_powers<Cuda>));
  m.impl("largest_magnitude", TORCH_BOX(&largest_magnitude<Cuda>));
  m.impl("scale_to_largest", TORCH_BOX(&scale_to_largest<Cuda>));
  m.impl("quantize_integers", TORCH_BOX(&quantize_integers<Cuda>));
  m.impl("quantize_float8", TORCH_BOX(&quantize_float8<Cuda>));
  m.impl("dequantize_float8", TORCH_BOX(&dequantize_float8<Cuda>));
  m.impl("madam_step", TORCH_BOX(&madam_step<Cuda>));
}

}  // namespace lns::ops
