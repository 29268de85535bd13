// The GPU's softmax under a causal mask behind the operators; on a CPU they are lns_sim/ops/causal_softmax.py's.
#include "cuda/causal_softmax.h"

#include <torch/csrc/stable/library.h>

#include "ops/cuda/quantizer.h"

namespace lns::ops {

namespace {

QuantizerChoice choice(int64_t bits, int64_t gamma, int64_t underflow, const std::vector<int64_t>& thresholds) {
  const QuantizerChoice q = {
      .format = make_format(bits, gamma), .underflow = as_underflow(underflow), .thresholds = thresholds};
  require(!q.draws(), "nothing is drawn here: underflow must clamp or flush");
  return q;
}

// Elements from matrix to matrix; `inner` dimensions are a matrix.
int64_t matrix_stride(const Tensor& t, int64_t inner, const char* name) {
  int64_t stride = 0, matrices = 1;
  for (int64_t d = t.dim() - inner - 1; d >= 0; --d) {
    if (t.size(d) == 1) continue;
    if (matrices == 1) stride = t.stride(d);
    require(t.stride(d) == stride * matrices, name, " must have one stride from matrix to matrix");
    matrices *= t.size(d);
  }
  return stride;
}

cuda::CodeRows code_rows(Tensor& t, const Format& f, const Tensor& first, const char* name) {
  check_codes(t, f, first, name);
  require(t.dim() >= 2 && t.stride(t.dim() - 1) == 1, name, " must hold rows");
  return {
      .codes = t.mutable_data_ptr(), .matrix_stride = matrix_stride(t, 2, name), .row_stride = t.stride(t.dim() - 2)};
}

cuda::RowScales row_scales(Tensor& t, const Tensor& codes, const Tensor& first) {
  check_float(t, first, "scales");
  std::vector<int64_t> sizes = sizes_of(codes);
  sizes.pop_back();
  require(sizes_of(t) == sizes && t.dim() > 0 && t.stride(t.dim() - 1) == 1,
          "scales must be one for each row of codes");
  return {.scales = t.mutable_data_ptr<float>(), .matrix_stride = matrix_stride(t, 1, "scales")};
}

void check_scale(const Tensor& scale, const Tensor& first) {
  check_float(scale, first, "scale");
  require(scale.numel() == 1, "scale must be one number");
}

cuda::CausalRows causal_rows(const Tensor& products, double factor, int64_t first, int64_t length) {
  check_float(products, products, "products");
  require(products.dim() >= 2 && products.is_contiguous(), "products must be contiguous matrices");
  const int64_t rows = products.size(products.dim() - 2), seen = products.size(products.dim() - 1);
  require(first >= 0 && first < int64_t{1} << 30 && rows < int64_t{1} << 30, "first is out of range: ", first);
  require(seen > 0 && seen <= length && length <= cuda::kMostKeys, "there is no kernel for ", length, " keys");
  return {.products = products.const_data_ptr<float>(),
          .factor = static_cast<float>(factor),
          .matrices = rows == 0 ? 0 : products.numel() / (rows * seen),
          .rows = rows,
          .first = static_cast<int>(first),
          .seen = static_cast<int>(seen),
          .length = static_cast<int>(length)};
}

void run_probabilities(const QuantizerChoice& q, const cuda::CausalRows& rows, const Tensor& products, Tensor& scale,
                       Tensor& to, bool values) {
  check_scale(scale, products);
  const DeviceCall call(products);
  cuda::causal_probabilities(view(q, call.launch(), products), rows, scale.mutable_data_ptr<float>(),
                             to.mutable_data_ptr(), values, call.launch());
}

Tensor causal_probabilities(Tensor products, double factor, int64_t first, int64_t length, Tensor scale, int64_t bits,
                            int64_t gamma, int64_t underflow, std::vector<int64_t> thresholds) {
  const QuantizerChoice q = choice(bits, gamma, underflow, thresholds);
  const cuda::CausalRows rows = causal_rows(products, factor, first, length);
  Tensor codes = new_tensor(products, sizes_of(products), code_type(q.format));
  run_probabilities(q, rows, products, scale, codes, false);
  return codes;
}

void causal_probability_values(Tensor products, double factor, int64_t first, int64_t length, Tensor scale,
                               int64_t bits, int64_t gamma, int64_t underflow, std::vector<int64_t> thresholds) {
  const QuantizerChoice q = choice(bits, gamma, underflow, thresholds);
  run_probabilities(q, causal_rows(products, factor, first, length), products, scale, products, true);
}

void causal_errors(Tensor products, Tensor gradients, double factor, int64_t first, Tensor scale, Tensor probabilities,
                   Tensor errors, Tensor error_scales, int64_t p_bits, int64_t p_gamma, int64_t p_underflow,
                   std::vector<int64_t> p_thresholds, int64_t bits, int64_t gamma, int64_t underflow,
                   std::vector<int64_t> thresholds) {
  const QuantizerChoice p = choice(p_bits, p_gamma, p_underflow, p_thresholds);
  const QuantizerChoice e = choice(bits, gamma, underflow, thresholds);
  require(code_type(p.format) == code_type(e.format), "codes of both must have one type");
  require(products.dim() >= 2 && errors.dim() == products.dim(), "codes must have a row for each of products");
  std::vector<int64_t> sizes = sizes_of(products);
  sizes.back() = errors.size(errors.dim() - 1);
  const cuda::CausalRows rows = causal_rows(products, factor, first, sizes.back());
  check_float(gradients, products, "gradients");
  check_same_shape(gradients, products, "gradients", "products");
  require(gradients.is_contiguous(), "gradients must be contiguous");
  check_scale(scale, products);
  const bool values = probabilities.scalar_type() == ScalarType::Float;
  if (values)
    check_same_shape(probabilities, products, "probabilities", "products");
  else
    require(sizes_of(probabilities) == sizes, "codes must have a row for each of products");
  require(sizes_of(errors) == sizes, "codes must have a row for each of products");
  const cuda::CodeRows of_p = values ? cuda::CodeRows{.codes = probabilities.mutable_data_ptr(),
                                                      .matrix_stride = rows.rows * rows.seen,
                                                      .row_stride = rows.seen}
                                     : code_rows(probabilities, p.format, products, "probabilities");
  if (values) require(probabilities.is_contiguous(), "values of probabilities must be contiguous");
  const cuda::CodeRows of_e = code_rows(errors, e.format, products, "errors");
  const cuda::RowScales scales = row_scales(error_scales, errors, products);
  const DeviceCall call(products);
  cuda::causal_errors(view(p, call.launch(), products), view(e, call.launch(), products), rows,
                      gradients.const_data_ptr<float>(), scale.const_data_ptr<float>(), of_p, values, of_e, scales,
                      call.launch());
}

// Rows of codes, their scales, and the scale that they are moved to.
cuda::ScaledRows scaled_rows(const Format& f, Tensor& codes, Tensor& scales, const Tensor& scale) {
  const cuda::CodeRows rows = code_rows(codes, f, codes, "codes");
  const cuda::RowScales from = row_scales(scales, codes, codes);
  check_scale(scale, codes);
  const int64_t count = codes.size(codes.dim() - 2), length = codes.size(codes.dim() - 1);
  return {.rows = rows,
          .scales = from,
          .matrices = codes.numel() == 0 ? 0 : codes.numel() / (count * length),
          .count = count,
          .length = as_int(length, "keys")};
}

void causal_rescale(Tensor codes, Tensor scales, Tensor scale, int64_t bits, int64_t gamma, int64_t underflow) {
  const QuantizerChoice q = choice(bits, gamma, underflow, {});
  const cuda::ScaledRows rows = scaled_rows(q.format, codes, scales, scale);
  const DeviceCall call(codes);
  cuda::causal_rescale(view(q, call.launch(), codes), rows, scale.const_data_ptr<float>(), call.launch());
}

Tensor causal_values(Tensor codes, Tensor scales, Tensor scale, int64_t bits, int64_t gamma, int64_t underflow) {
  const QuantizerChoice q = choice(bits, gamma, underflow, {});
  const cuda::ScaledRows rows = scaled_rows(q.format, codes, scales, scale);
  Tensor out = new_tensor(codes, sizes_of(codes), ScalarType::Float);
  const DeviceCall call(codes);
  cuda::causal_values(view(q, call.launch(), codes), rows, scale.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
                      call.launch());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CUDA, m) {
  m.impl("causal_probabilities", TORCH_BOX(&causal_probabilities));
  m.impl("causal_probability_values", TORCH_BOX(&causal_probability_values));
  m.impl("causal_errors", TORCH_BOX(&causal_errors));
  m.impl("causal_rescale", TORCH_BOX(&causal_rescale));
  m.impl("causal_values", TORCH_BOX(&causal_values));
}

}  // namespace lns::ops
