// Each pass names its two operands and where results go; groups are the batch.
#include "gemm/convolution.h"

#include <numeric>

namespace lns {

namespace {

// Sizes that the passes share: of planes and of a group's channels.
struct Sizes {
  int64_t image, grid, taps, in_group, out_group;

  explicit Sizes(const ConvShape& s)
      : image(s.y.in * s.x.in),
        grid(s.y.out() * s.x.out()),
        taps(s.y.kernel * s.x.kernel),
        in_group(s.in_channels / s.groups),
        out_group(s.out_channels / s.groups) {}
  int64_t weight_group() const { return out_group * in_group * taps; }
};

Batch groups(const ConvShape& s, const Offsets& stride) {
  Batch b;
  b.add(s.groups, stride);
  return b;
}

// What the output positions see of one group of x.
Patches input_patches(const ConvShape& s, const Sizes& z) {
  const auto axis = [](const ConvAxis& a, int64_t stride) {
    return PatchAxis{.grid = a.out(),
                     .image = a.in,
                     .taps = a.kernel,
                     .grow = a.stride,
                     .tap_step = a.dilation,
                     .origin = -a.padding,
                     .shrink = 1,
                     .image_stride = stride};
  };
  return {.y = axis(s.y, s.x.in),
          .x = axis(s.x, 1),
          .batch = s.batch,
          .channels = z.in_group,
          .batch_stride = s.in_channels * z.image,
          .channel_stride = z.image};
}

// What input positions (phase_y + i * y.stride, phase_x + j * x.stride) see of one group of dy. Positions of one phase
// see the same taps, and no others.
Patches gradient_patches(const ConvShape& s, const Sizes& z, int64_t phase_y, int64_t phase_x) {
  const auto axis = [](const ConvAxis& a, int64_t phase, int64_t stride) {
    return PatchAxis{.grid = (a.in - phase + a.stride - 1) / a.stride,
                     .image = a.out(),
                     .taps = a.kernel,
                     .grow = a.stride,
                     .tap_step = -a.dilation,
                     .origin = a.padding + phase,
                     .shrink = a.stride,
                     .image_stride = stride};
  };
  return {.y = axis(s.y, phase_y, s.x.out()),
          .x = axis(s.x, phase_x, 1),
          .batch = s.batch,
          .channels = z.out_group,
          .batch_stride = s.out_channels * z.grid,
          .channel_stride = z.grid};
}

// Keeps an axis' seen taps, which are every `period`-th; returns the first one and the period.
struct SeenTaps {
  int64_t first, period;
};
SeenTaps keep_seen_taps(PatchAxis& a) {
  const auto is_seen = [&](int64_t tap) { return (tap * a.tap_step + a.origin) % a.shrink == 0; };
  SeenTaps seen = {.first = 0, .period = a.shrink / std::gcd(int64_t{a.shrink}, a.tap_step)};
  while (seen.first < std::min<int64_t>(seen.period, a.taps) && !is_seen(seen.first)) ++seen.first;
  a.taps =
      seen.first < a.taps && is_seen(seen.first) ? (a.taps - seen.first + seen.period - 1) / seen.period : int64_t{0};
  a.origin += seen.first * a.tap_step;
  a.tap_step *= seen.period;
  return seen;
}

void* advance(void* output, int64_t elements) { return static_cast<float*>(output) + elements; }

// A scale of every slice of `inner` rows, or of every row.
Axis scale_of_slices(int64_t inner, const ConvOperand& o) { return {.inner = inner, .outer_stride = o.scale_step}; }
Axis scale_of_rows(int64_t rows, const ConvOperand& o) { return Axis::flat(rows, o.scale_step); }

}  // namespace

Product conv_forward(const ConvShape& s, const ConvOperand& x, const ConvOperand& w, void* y) {
  const Sizes z(s);
  const Patches patches = input_patches(s, z);
  // The weights' K = tap * channels + channel is stored as channel * taps + tap.
  const Axis k = {.inner = z.in_group, .inner_stride = z.taps, .outer_stride = 1};
  return {.left = {.operand = OperandView::positions(x.codes, patches),
                   .rows = patches.positions(),
                   .output = {.inner = z.grid, .inner_stride = 1, .outer_stride = s.out_channels * z.grid},
                   .scale = x.scale,
                   .scale_axis = scale_of_slices(z.grid, x)},
          .right = {.operand = OperandView::strided(w.codes, z.in_group * z.taps, k),
                    .rows = z.out_group,
                    .output = Axis::flat(z.out_group, z.grid),
                    .scale = w.scale,
                    .scale_axis = scale_of_rows(z.out_group, w)},
          .k = patches.taps(),
          .output = y,
          .batch = groups(s, {.left = z.in_group * z.image,
                              .right = z.weight_group(),
                              .right_scale = z.out_group * w.scale_step,
                              .output = z.out_group * z.grid})};
}

std::vector<Product> conv_input_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& w, void* dx,
                                         int vector_size, bool count) {
  const Sizes z(s);
  const bool leave_out = !count && z.out_group % vector_size == 0;
  std::vector<Product> phases;
  for (int64_t phase_y = 0; phase_y < std::min(s.y.stride, s.y.in); ++phase_y)
    for (int64_t phase_x = 0; phase_x < std::min(s.x.stride, s.x.in); ++phase_x) {
      Patches patches = gradient_patches(s, z, phase_y, phase_x);
      SeenTaps y = {.first = 0, .period = 1}, x = y;
      if (leave_out) y = keep_seen_taps(patches.y), x = keep_seen_taps(patches.x);
      const Axis output = {.inner = patches.x.grid,
                           .inner_stride = s.x.stride,
                           .outer_stride = s.in_channels * z.image,
                           .middle = patches.y.grid,
                           .middle_stride = s.y.stride * s.x.in};
      // Rows of w are input channels; K = (tap y, tap x, out channel).
      const Axis k = {.inner = z.out_group,
                      .inner_stride = z.in_group * z.taps,
                      .outer_stride = y.period * s.x.kernel,
                      .middle = std::max<int64_t>(patches.x.taps, 1),
                      .middle_stride = x.period};
      const CodeView first = w.codes.at(y.first * s.x.kernel + x.first);
      phases.push_back(
          {.left = {.operand = OperandView::positions(dy.codes, patches),
                    .rows = patches.positions(),
                    .output = output,
                    .scale = dy.scale,
                    .scale_axis = scale_of_slices(patches.y.grid * patches.x.grid, dy)},
           .right = {.operand = OperandView::strided(first, z.taps, k),
                     .rows = z.in_group,
                     .output = Axis::flat(z.in_group, z.image),
                     .scale = w.scale,
                     .scale_axis = scale_of_rows(z.in_group, w)},
           .k = patches.taps(),
           .output = advance(dx, phase_y * s.x.in + phase_x),
           .batch =
               groups(s, {.left = z.out_group * z.grid, .right = z.weight_group(), .output = z.in_group * z.image})});
    }
  return phases;
}

Product conv_weight_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& x, void* dw) {
  const Sizes z(s);
  const Patches patches = input_patches(s, z);
  const Axis k = {.inner = z.grid, .inner_stride = 1, .outer_stride = s.out_channels * z.grid};
  // Rows of x are (tap, channel), which dw stores as channel * taps + tap.
  return {.left = {.operand = OperandView::strided(dy.codes, z.grid, k),
                   .rows = z.out_group,
                   .output = Axis::flat(z.out_group, z.in_group * z.taps),
                   .scale = dy.scale,
                   .scale_axis = scale_of_rows(z.out_group, dy)},
          .right = {.operand = OperandView::taps(x.codes, patches),
                    .rows = patches.taps(),
                    .output = {.inner = z.in_group, .inner_stride = z.taps, .outer_stride = 1},
                    .scale = x.scale,
                    .scale_axis = {.inner = z.in_group, .inner_stride = x.scale_step}},
          .k = patches.positions(),
          .output = dw,
          .batch = groups(s, {.left = z.out_group * z.grid,
                              .right = z.in_group * z.image,
                              .left_scale = z.out_group * dy.scale_step,
                              .right_scale = z.in_group * x.scale_step,
                              .output = z.weight_group()})};
}

}  // namespace lns
