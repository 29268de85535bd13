// Each pass names its two operands and where results go; groups are the batch.
#include "gemm/convolution.h"

#include <numeric>

namespace lns {

namespace {

// Sizes that the passes share.
struct Sizes {
  int64_t image, grid, taps, in_group, out_group;

  explicit Sizes(const ConvShape& s)
      : image(s.height * s.width),
        grid(s.out_h * s.out_w),
        taps(s.kernel_h * s.kernel_w),
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
  return {{s.out_h, s.height, s.kernel_h, s.stride_h, s.dilation_h, -s.padding_h, 1, s.width},
          {s.out_w, s.width, s.kernel_w, s.stride_w, s.dilation_w, -s.padding_w, 1, 1},
          s.batch,
          z.in_group,
          s.in_channels * z.image,
          z.image};
}

// What input positions (phase_y + i * stride_h, phase_x + j * stride_w) see of one group of dy. Positions of one phase
// see the same taps, and no others.
Patches gradient_patches(const ConvShape& s, const Sizes& z, int64_t phase_y, int64_t phase_x) {
  const int64_t rows = (s.height - phase_y + s.stride_h - 1) / s.stride_h;
  const int64_t columns = (s.width - phase_x + s.stride_w - 1) / s.stride_w;
  return {{rows, s.out_h, s.kernel_h, s.stride_h, -s.dilation_h, s.padding_h + phase_y, s.stride_h, s.out_w},
          {columns, s.out_w, s.kernel_w, s.stride_w, -s.dilation_w, s.padding_w + phase_x, s.stride_w, 1},
          s.batch,
          z.out_group,
          s.out_channels * z.grid,
          z.grid};
}

// Keeps an axis' seen taps, which are every `period`-th; returns the first one and the period.
struct SeenTaps {
  int64_t first, period;
};
SeenTaps keep_seen_taps(PatchAxis& a) {
  const auto is_seen = [&](int64_t tap) { return (tap * a.tap_step + a.origin) % a.shrink == 0; };
  SeenTaps seen = {0, a.shrink / std::gcd(a.shrink, a.tap_step)};
  while (seen.first < std::min(seen.period, a.taps) && !is_seen(seen.first)) ++seen.first;
  a.taps = seen.first < a.taps && is_seen(seen.first) ? (a.taps - seen.first + seen.period - 1) / seen.period : 0;
  a.origin += seen.first * a.tap_step;
  a.tap_step *= seen.period;
  return seen;
}

void* advance(void* output, int64_t elements) { return static_cast<float*>(output) + elements; }

}  // namespace

Product conv_forward(const ConvShape& s, const ConvOperand& x, const ConvOperand& w, void* y) {
  const Sizes z(s);
  const Patches patches = input_patches(s, z);
  // The weights' K = tap * channels + channel is stored as channel * taps + tap.
  return {{Operand::positions(x.codes, patches),
           patches.positions(),
           {z.grid, 1, s.out_channels * z.grid},
           x.scale,
           {z.grid, 0, x.scale_step}},
          {Operand::strided(w.codes, z.in_group * z.taps, {z.in_group, z.taps, 1}), z.out_group,
           Axis::flat(z.out_group, z.grid), w.scale, Axis::flat(z.out_group, w.scale_step)},
          patches.taps(),
          y,
          groups(s, {z.in_group * z.image, z.weight_group(), 0, z.out_group * w.scale_step, z.out_group * z.grid})};
}

std::vector<Product> conv_input_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& w, void* dx,
                                         int vector_size, bool count) {
  const Sizes z(s);
  const bool leave_out = !count && z.out_group % vector_size == 0;
  std::vector<Product> phases;
  for (int64_t phase_y = 0; phase_y < std::min(s.stride_h, s.height); ++phase_y)
    for (int64_t phase_x = 0; phase_x < std::min(s.stride_w, s.width); ++phase_x) {
      Patches patches = gradient_patches(s, z, phase_y, phase_x);
      SeenTaps y = {0, 1}, x = {0, 1};
      if (leave_out) y = keep_seen_taps(patches.y), x = keep_seen_taps(patches.x);
      const int64_t positions = patches.y.grid * patches.x.grid;
      const Axis output = {patches.x.grid, s.stride_w, s.in_channels * z.image, patches.y.grid, s.stride_h * s.width};
      // Rows of w are input channels; K = (tap y, tap x, out channel).
      const Axis taps = {z.out_group, z.in_group * z.taps, y.period * s.kernel_w, std::max<int64_t>(patches.x.taps, 1),
                         x.period};
      phases.push_back({{Operand::positions(dy.codes, patches),
                         patches.positions(),
                         output,
                         dy.scale,
                         {positions, 0, dy.scale_step}},
                        {Operand::strided(w.codes.at(y.first * s.kernel_w + x.first), z.taps, taps), z.in_group,
                         Axis::flat(z.in_group, z.image), w.scale, Axis::flat(z.in_group, w.scale_step)},
                        patches.taps(),
                        advance(dx, phase_y * s.width + phase_x),
                        groups(s, {z.out_group * z.grid, z.weight_group(), 0, 0, z.in_group * z.image})});
    }
  return phases;
}

Product conv_weight_gradient(const ConvShape& s, const ConvOperand& dy, const ConvOperand& x, void* dw) {
  const Sizes z(s);
  const Patches patches = input_patches(s, z);
  // Rows of x are (tap, channel), which dw stores as channel * taps + tap.
  return {{Operand::strided(dy.codes, z.grid, {z.grid, 1, s.out_channels * z.grid}), z.out_group,
           Axis::flat(z.out_group, z.in_group * z.taps), dy.scale, Axis::flat(z.out_group, dy.scale_step)},
          {Operand::taps(x.codes, patches),
           patches.taps(),
           {z.in_group, z.taps, 1},
           x.scale,
           {z.in_group, x.scale_step, 0}},
          patches.positions(),
          dw,
          groups(s, {z.out_group * z.grid, z.in_group * z.image, z.out_group * dy.scale_step, z.in_group * x.scale_step,
                     z.weight_group()})};
}

}  // namespace lns
