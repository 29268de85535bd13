// The operators that run on the datapath, the same for every device: checks, and what is multiplied with what. `Device`
// is a class whose static function `run` hands products to the device's engine, see ops/cpu and ops/cuda.
#pragma once

#include <torch/csrc/stable/library.h>

#include "core/log_encoding.h"
#include "gemm/convolution.h"
#include "ops/arguments.h"

namespace lns::ops {

using Ints = std::vector<int64_t>;
using Result = std::tuple<Tensor, Tensor>;

// Decoded and validated, once.
inline const AnyDatapath& datapath_of(const Ints& encoded) {
  static Cache<Ints, AnyDatapath> cache;
  return cache.get(encoded, [&] {
    auto d = std::make_unique<const AnyDatapath>(decode_any_datapath(encoded));
    std::visit([](const auto& one) { validate(one); }, *d);
    return d;
  });
}

// A device's engine of a datapath, made once.
template <typename Engine, typename D>
const Engine& engine_of(const Ints& encoded, const D& datapath) {
  static Cache<Ints, Engine> cache;
  return cache.get(encoded, [&] { return std::make_unique<const Engine>(datapath); });
}

// An operand's codes; a gamma of 0 is the datapath's.
inline CodeView operand_codes(const AnyDatapath& any, const Tensor& codes, int64_t bits, int64_t gamma,
                              const Tensor& first, const char* name) {
  const Format& own = format_of(any);
  const Format f = make_format(bits, gamma == 0 ? own.gamma : gamma);
  check_codes(codes, f, first, name);
  const int step = own.gamma / f.gamma;
  require(step > 0 && f.e_max() * step <= own.e_max(), "an operand of ", bits, " bits and gamma ", f.gamma,
          " does not fit a datapath of ", own.bits, " bits and gamma ", own.gamma);
  return {.data = codes.const_data_ptr(), .format = f, .log2_step = log2_exact(step)};
}

// Block scales of both sides, as a call gives them.
struct BlockShifts {
  std::optional<Tensor> left, right;
  int64_t block;

  // Checks, before anything is made of them, that blocks of K hold whole vectors of a linear datapath.
  void check(const AnyDatapath& any) const {
    require(block > 0 || (!left && !right), "shifts of blocks need the blocks' length");
    if (block == 0) return;
    const auto* d = std::get_if<Datapath>(&any);
    require(d != nullptr, "a datapath that adds logarithms takes no blocks");
    require(block % d->vector_size == 0, "a block of ", block,
            " elements along K is no multiple of vector_size = ", d->vector_size);
  }
  // A side's, of these sizes; null where it has none.
  static CodeView codes(const std::optional<Tensor>& shifts, const Ints& sizes, const Tensor& first) {
    if (!shifts) return {};
    check_tensor(*shifts, ScalarType::Byte, first, "shifts");
    require(sizes_of(*shifts) == sizes, "shifts must have an entry for each block");
    return {.data = shifts->const_data_ptr(), .format = {.bits = 8, .gamma = 1}};
  }
};

inline Tensor new_output(const Tensor& like, const Ints& sizes, bool accumulators) {
  return new_tensor(like, sizes, accumulators ? ScalarType::Int : ScalarType::Float);
}

// Runs the products into `out`; there are counters if they are asked for.
template <typename Device>
Result run(const Ints& datapath, const std::vector<Product>& products, bool accumulators, bool count,
           const Tensor& out) {
  Tensor counters = new_tensor(out, {count ? kCounters : 0}, ScalarType::Long);
  Device::run(datapath, products, accumulators, out, counters);
  return {out, counters};
}

template <typename Device>
Result matmul(Tensor a, Tensor a_scale, Tensor b, Tensor b_scale, int64_t a_bits, int64_t b_bits, Ints datapath,
              bool accumulators, bool count, int64_t a_gamma, int64_t b_gamma, std::optional<Tensor> a_shifts,
              std::optional<Tensor> b_shifts, int64_t block) {
  const AnyDatapath& d = datapath_of(datapath);
  const BlockShifts shifts = {.left = a_shifts, .right = b_shifts, .block = block};
  shifts.check(d);
  const CodeView av = operand_codes(d, a, a_bits, a_gamma, a, "a"), bv = operand_codes(d, b, b_bits, b_gamma, a, "b");
  check_float(a_scale, a, "a_scale");
  check_float(b_scale, a, "b_scale");
  const int64_t rank = a.dim(), row = rank - 2, column = rank - 1;
  require(rank >= 2 && b.dim() == rank && a_scale.dim() == rank && b_scale.dim() == rank,
          "matmul takes operands and scales of one rank, 2 or more");
  const int64_t m = a.size(row), k = a.size(column), n = b.size(column);
  require(b.size(row) == k && k > 0, "a's last dimension must be b's last but one, and not empty");
  require(a_scale.size(row) == m && a_scale.size(column) == 1 && b_scale.size(row) == 1 && b_scale.size(column) == n,
          "a_scale must be (..., M, 1) and b_scale (..., 1, N)");
  Ints sizes = sizes_of(a);
  sizes[column] = n;
  for (int64_t i = 0; i < row; ++i)
    require(b.size(i) == sizes[i] && a_scale.size(i) == sizes[i] && b_scale.size(i) == sizes[i],
            "batch dimensions must be equal (expand them first)");
  Ints a_blocks = sizes_of(a), b_blocks = sizes_of(b);
  if (block > 0) a_blocks[column] = b_blocks[row] = (k + block - 1) / block;
  const CodeView as = shifts.codes(a_shifts, a_blocks, a), bs = shifts.codes(b_shifts, b_blocks, a);
  const auto stride = [](const std::optional<Tensor>& t, int64_t i) { return t ? t->stride(i) : 0; };
  Tensor out = new_output(a, sizes, accumulators);
  Batch batch;
  for (int64_t i = 0; i < row; ++i)
    batch.add(sizes[i], {.left = a.stride(i),
                         .right = b.stride(i),
                         .left_scale = a_scale.stride(i),
                         .right_scale = b_scale.stride(i),
                         .output = out.stride(i),
                         .left_shift = stride(a_shifts, i),
                         .right_shift = stride(b_shifts, i)});
  const Product product = {
      .left = {.operand = OperandView::strided(av, a.stride(row), Axis::flat(k, a.stride(column))),
               .rows = m,
               .output = Axis::flat(m, n),
               .scale = a_scale.const_data_ptr<float>(),
               .scale_axis = Axis::flat(m, a_scale.stride(row)),
               .shifts = OperandView::strided(as, stride(a_shifts, row),
                                              Axis::flat(a_blocks[column], stride(a_shifts, column)))},
      .right = {.operand = OperandView::strided(bv, b.stride(column), Axis::flat(k, b.stride(row))),
                .rows = n,
                .output = Axis::flat(n, 1),
                .scale = b_scale.const_data_ptr<float>(),
                .scale_axis = Axis::flat(n, b_scale.stride(column)),
                .shifts = OperandView::strided(bs, stride(b_shifts, column),
                                               Axis::flat(b_blocks[row], stride(b_shifts, row)))},
      .k = k,
      .output = out.mutable_data_ptr(),
      .batch = batch,
      .block = block};
  return run<Device>(datapath, {product}, accumulators, count, out);
}

// A contiguous operand and its scale, one or one per slice of `scale_dim`; keeps both tensors alive.
struct ConvArgument {
  Tensor codes, scale;
  ConvOperand operand;

  ConvArgument(const AnyDatapath& d, const Tensor& c, const Tensor& s, int64_t bits, int64_t gamma, int64_t scale_dim,
               const Tensor& first, const char* name)
      : codes(c), scale(s) {
    check_float(s, first, "its scale");
    require(c.dim() == 4, name, " must have 4 dimensions");
    const bool one = s.numel() == 1;
    require(one || (s.dim() == 4 && s.size(scale_dim) == c.size(scale_dim) && s.numel() == s.size(scale_dim)),
            "the scale of ", name, " must be one number, or vary along dimension ", scale_dim, " alone");
    codes = torch::stable::contiguous(c);
    scale = torch::stable::contiguous(s);
    operand = {.codes = operand_codes(d, codes, bits, gamma, first, name),
               .scale = scale.const_data_ptr<float>(),
               .scale_step = one ? 0 : 1};
  }
};

struct ConvOptions {
  const Ints &stride, &padding, &dilation;
  int64_t groups;
};

// Checked, of x's and w's sizes.
inline ConvShape conv_shape(const Ints& x, const Ints& w, const ConvOptions& o) {
  constexpr int64_t most = 1 << 28;  // what 32 bits hold sums of, on a GPU
  require(x.size() == 4 && w.size() == 4 && o.stride.size() == 2 && o.padding.size() == 2 && o.dilation.size() == 2,
          "a convolution takes sizes of 4 dimensions and 2 strides, paddings and dilations");
  const auto axis = [&](int i) {
    const ConvAxis a = {
        .in = x[2 + i], .kernel = w[2 + i], .stride = o.stride[i], .padding = o.padding[i], .dilation = o.dilation[i]};
    const auto check = [&](int64_t n, int64_t least, const char* name) {
      require(n >= least && n < most, name, " must be between ", least, " and ", most - 1, ", got ", n);
    };
    check(a.in, 0, "an input's extent");
    check(a.kernel, 1, "a kernel's extent");
    check(a.stride, 1, "a stride");
    check(a.padding, 0, "a padding");
    check(a.dilation, 1, "a dilation");
    require(a.fits(), "the kernel is larger than the padded input");
    return a;
  };
  require(o.groups > 0 && o.groups < most && x[0] >= 0 && w[1] > 0 && x[1] % o.groups == 0 && x[1] / o.groups == w[1] &&
              w[0] >= 0 && w[0] % o.groups == 0,
          "channels do not match groups = ", o.groups);
  return {.batch = x[0], .in_channels = x[1], .out_channels = w[0], .groups = o.groups, .y = axis(0), .x = axis(1)};
}

inline Ints output_size(const ConvShape& s) { return {s.batch, s.out_channels, s.y.out(), s.x.out()}; }

// Gives products their shifts, which lie as codes of a convolution do that has a channel for each block of channels:
// `of_blocks` are that convolution's products.
inline void add_shifts(std::vector<Product>& products, const std::vector<Product>& of_blocks, int64_t block) {
  for (size_t i = 0; i < products.size(); ++i) {
    Product& p = products[i];
    const Product& s = of_blocks[i];
    p.block = block;
    p.left.shifts = s.left.operand, p.right.shifts = s.right.operand;
    for (int d = 0; d < p.batch.dims; ++d)
      p.batch.strides[d].left_shift = s.batch.strides[d].left,
      p.batch.strides[d].right_shift = s.batch.strides[d].right;
  }
}
inline ConvOperand shift_operand(const CodeView& shifts) {
  return {.codes = shifts, .scale = nullptr, .scale_step = 0};
}
inline std::optional<Tensor> contiguous(const std::optional<Tensor>& t) {
  return t ? std::optional(torch::stable::contiguous(*t)) : t;
}
inline Ints in_blocks(const Tensor& t, int64_t dim, int64_t block) {
  Ints sizes = sizes_of(t);
  sizes[dim] /= block;
  return sizes;
}

template <typename Device>
Result conv2d(Tensor x, Tensor x_scale, Tensor w, Tensor w_scale, int64_t x_bits, int64_t w_bits, Ints stride,
              Ints padding, Ints dilation, int64_t groups, Ints datapath, bool accumulators, bool count,
              int64_t x_gamma, int64_t w_gamma, std::optional<Tensor> x_shifts, std::optional<Tensor> w_shifts,
              int64_t block) {
  const AnyDatapath& d = datapath_of(datapath);
  const BlockShifts shifts = {.left = contiguous(x_shifts), .right = contiguous(w_shifts), .block = block};
  shifts.check(d);
  const ConvArgument xa(d, x, x_scale, x_bits, x_gamma, 0, x, "x");
  const ConvArgument wa(d, w, w_scale, w_bits, w_gamma, 0, x, "w");
  const ConvShape s = conv_shape(sizes_of(x), sizes_of(w),
                                 {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
  Tensor out = new_output(x, output_size(s), accumulators);
  std::vector<Product> products = {conv_forward(s, xa.operand, wa.operand, out.mutable_data_ptr())};
  if (block > 0) {
    require(w.size(1) % block == 0, "a group's channels must be a multiple of the block");
    ConvShape of_blocks = s;
    of_blocks.in_channels /= block;
    const CodeView xs = shifts.codes(shifts.left, in_blocks(x, 1, block), x);
    const CodeView ws = shifts.codes(shifts.right, in_blocks(w, 1, block), x);
    add_shifts(products, {conv_forward(of_blocks, shift_operand(xs), shift_operand(ws), nullptr)}, block);
  }
  return run<Device>(datapath, products, accumulators, count, out);
}

template <typename Device>
Result conv2d_input_gradient(Tensor dy, Tensor dy_scale, Tensor w, Tensor w_scale, int64_t dy_bits, int64_t w_bits,
                             Ints input_size, Ints stride, Ints padding, Ints dilation, int64_t groups, Ints datapath,
                             bool accumulators, bool count, int64_t dy_gamma, int64_t w_gamma,
                             std::optional<Tensor> dy_shifts, std::optional<Tensor> w_shifts, int64_t block) {
  const AnyDatapath& d = datapath_of(datapath);
  const BlockShifts shifts = {.left = contiguous(dy_shifts), .right = contiguous(w_shifts), .block = block};
  shifts.check(d);
  const ConvArgument da(d, dy, dy_scale, dy_bits, dy_gamma, 0, dy, "dy");
  const ConvArgument wa(d, w, w_scale, w_bits, w_gamma, 1, dy, "w");
  const ConvShape s = conv_shape(input_size, sizes_of(w),
                                 {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
  require(sizes_of(dy) == output_size(s), "dy's shape is not that of the output");
  Tensor out = new_output(dy, input_size, accumulators);
  std::vector<Product> products =
      conv_input_gradient(s, da.operand, wa.operand, out.mutable_data_ptr(), lanes_together(d), count);
  if (block > 0) {
    require(w.size(0) / groups % block == 0, "a group's output channels must be a multiple of the block");
    ConvShape of_blocks = s;
    of_blocks.out_channels /= block;
    const CodeView ds = shifts.codes(shifts.left, in_blocks(dy, 1, block), dy);
    const CodeView ws = shifts.codes(shifts.right, in_blocks(w, 0, block), dy);
    // Taps are left out as above: all vectors lie within taps.
    add_shifts(products, conv_input_gradient(of_blocks, shift_operand(ds), shift_operand(ws), nullptr, 1, count),
               block);
  }
  return run<Device>(datapath, products, accumulators, count, out);
}

// With block scales K runs over (output row, output column, image), images fastest, in whole blocks. Nothing is copied:
// tensors lie as their strides say, and x was filled up with zero codes where taps see them. Rows of x are (tap column,
// tap row, channel), if one stride serves the last two; else there is a product for each tap row.
template <typename Device>
Result weight_gradient_of_images(const Ints& datapath, const ConvShape& s, const Tensor& dy, const Tensor& dy_scale,
                                 const Tensor& x, const Tensor& x_scale, const CodeView& dy_codes,
                                 const CodeView& x_codes, const BlockShifts& shifts, const Tensor& out,
                                 bool accumulators, bool count) {
  const int64_t images = std::max<int64_t>(s.batch, 1), block = shifts.block;
  require(s.batch % block == 0, "images must be a multiple of the block");
  const int64_t blocks = std::max<int64_t>(images / block, 1);
  require(s.y.padding == 0 && s.x.padding == 0, "with blocks x comes filled up with zero codes: padding must be 0");
  require(dy_scale.numel() == 1 && x_scale.numel() == 1, "blocks have one scale");
  const CodeView ds = shifts.codes(shifts.left, in_blocks(dy, 0, block), dy);
  const CodeView xs = shifts.codes(shifts.right, in_blocks(x, 0, block), dy);
  using Strides = std::array<int64_t, 4>;
  const auto strides = [](const Tensor& t) { return Strides{t.stride(0), t.stride(1), t.stride(2), t.stride(3)}; };
  const auto maybe = [&](const std::optional<Tensor>& t) { return t ? strides(*t) : Strides{}; };
  const Strides dy_at = strides(dy), x_at = strides(x), ds_at = maybe(shifts.left), xs_at = maybe(shifts.right);
  const int64_t outputs = s.out_channels / s.groups, inputs = s.in_channels / s.groups;
  const int64_t taps = s.y.kernel * s.x.kernel;
  const auto one_stride = [&](const Strides& t) { return s.y.dilation * t[2] == inputs * t[1]; };
  const int64_t tap_rows = one_stride(x_at) && one_stride(xs_at) ? s.y.kernel : 1;
  const auto errors = [&](const CodeView& codes, const Strides& t, int64_t n) {
    return OperandView::strided(
        codes, t[1],
        {.inner = n, .inner_stride = t[0], .outer_stride = t[2], .middle = s.x.out(), .middle_stride = t[3]});
  };
  // As a batch of images whose lines are columns' images.
  const auto seen = [&](const CodeView& codes, const Strides& t, int64_t n) {
    const PatchAxis columns = {.grid = s.x.out(),
                               .image = s.x.in,
                               .taps = s.x.kernel,
                               .grow = s.x.stride,
                               .tap_step = s.x.dilation,
                               .origin = 0,
                               .shrink = 1,
                               .image_stride = t[3]};
    const PatchAxis along_images = {
        .grid = n, .image = n, .taps = 1, .grow = 1, .tap_step = 1, .origin = 0, .shrink = 1, .image_stride = t[0]};
    return OperandView::taps(codes, {.y = columns,
                                     .x = along_images,
                                     .batch = s.y.out(),
                                     .channels = tap_rows * inputs,
                                     .batch_stride = s.y.stride * t[2],
                                     .channel_stride = t[1]});
  };
  Batch batch;
  batch.add(s.groups, {.left = outputs * dy_at[1],
                       .right = inputs * x_at[1],
                       .output = outputs * inputs * taps,
                       .left_shift = outputs * ds_at[1],
                       .right_shift = inputs * xs_at[1]});
  batch.add(s.y.kernel / tap_rows,
            {.right = s.y.dilation * x_at[2], .output = s.x.kernel, .right_shift = s.y.dilation * xs_at[2]});
  const int64_t rows = s.x.kernel * tap_rows * inputs;
  const Product product = {.left = {.operand = errors(dy_codes, dy_at, images),
                                    .rows = outputs,
                                    .output = Axis::flat(outputs, inputs * taps),
                                    .scale = dy_scale.const_data_ptr<float>(),
                                    .scale_axis = Axis::flat(outputs, 0),
                                    .shifts = errors(ds, ds_at, blocks)},
                           .right = {.operand = seen(x_codes, x_at, images),
                                     .rows = rows,
                                     .output = {.inner = inputs,
                                                .inner_stride = taps,
                                                .outer_stride = 1,
                                                .middle = tap_rows,
                                                .middle_stride = s.x.kernel},
                                     .scale = x_scale.const_data_ptr<float>(),
                                     .scale_axis = Axis::flat(rows, 0),
                                     .shifts = seen(xs, xs_at, blocks)},
                           .k = s.y.out() * s.x.out() * s.batch,
                           .output = out.mutable_data_ptr(),
                           .batch = batch,
                           .block = block};
  return run<Device>(datapath, {product}, accumulators, count, out);
}

template <typename Device>
Result conv2d_weight_gradient(Tensor dy, Tensor dy_scale, Tensor x, Tensor x_scale, int64_t dy_bits, int64_t x_bits,
                              Ints kernel_size, Ints stride, Ints padding, Ints dilation, int64_t groups, Ints datapath,
                              bool accumulators, bool count, int64_t dy_gamma, int64_t x_gamma,
                              std::optional<Tensor> dy_shifts, std::optional<Tensor> x_shifts, int64_t block) {
  const AnyDatapath& d = datapath_of(datapath);
  const BlockShifts shifts = {.left = dy_shifts, .right = x_shifts, .block = block};
  shifts.check(d);
  require(dy.dim() == 4 && x.dim() == 4, "dy and x must have 4 dimensions");
  require(kernel_size.size() == 2 && groups > 0, "kernel_size must hold 2 integers, and groups be positive");
  const Ints weight = {dy.size(1), x.size(1) / groups, kernel_size[0], kernel_size[1]};
  const ConvShape s =
      conv_shape(sizes_of(x), weight, {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
  require(sizes_of(dy) == output_size(s), "dy's shape is not that of the output");
  Tensor out = new_output(dy, weight, accumulators);
  if (block > 0) {
    check_float(dy_scale, dy, "dy_scale");
    check_float(x_scale, dy, "x_scale");
    return weight_gradient_of_images<Device>(
        datapath, s, dy, dy_scale, x, x_scale, operand_codes(d, dy, dy_bits, dy_gamma, dy, "dy"),
        operand_codes(d, x, x_bits, x_gamma, dy, "x"), shifts, out, accumulators, count);
  }
  const ConvArgument da(d, dy, dy_scale, dy_bits, dy_gamma, 1, dy, "dy");
  const ConvArgument xa(d, x, x_scale, x_bits, x_gamma, 1, dy, "x");
  return run<Device>(datapath, {conv_weight_gradient(s, da.operand, xa.operand, out.mutable_data_ptr())}, accumulators,
                     count, out);
}

}  // namespace lns::ops
