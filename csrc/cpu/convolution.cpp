// Each pass names, for every group, its two operands and where results go; the engine does the rest.
#include "cpu/convolution.h"

#include <algorithm>

namespace lns::cpu {

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

// What the output positions see of one group of x.
Patches input_patches(const ConvShape& s, const Sizes& z) {
  return {{s.out_h, s.height, s.kernel_h, s.stride_h, s.dilation_h, -s.padding_h, 1, s.width},
          {s.out_w, s.width, s.kernel_w, s.stride_w, s.dilation_w, -s.padding_w, 1, 1},
          s.batch, z.in_group, s.in_channels * z.image, z.image};
}

// What input positions (phase_y + i * stride_h, phase_x + j * stride_w) see of one group of dy. Positions of one phase
// see the same taps, and no others.
Patches gradient_patches(const ConvShape& s, const Sizes& z, int64_t phase_y, int64_t phase_x) {
  const int64_t rows = (s.height - phase_y + s.stride_h - 1) / s.stride_h;
  const int64_t columns = (s.width - phase_x + s.stride_w - 1) / s.stride_w;
  return {{rows, s.out_h, s.kernel_h, s.stride_h, -s.dilation_h, s.padding_h + phase_y, s.stride_h, s.out_w},
          {columns, s.out_w, s.kernel_w, s.stride_w, -s.dilation_w, s.padding_w + phase_x, s.stride_w, 1},
          s.batch, z.out_group, s.out_channels * z.grid, z.grid};
}

void* advance(void* output, int64_t elements) { return static_cast<float*>(output) + elements; }

}  // namespace

void conv_forward(const Engine& engine, const ConvShape& s, const ConvOperand& x, const ConvOperand& w, void* y,
                  bool accumulators, Counters* counters) {
  const Sizes z(s);
  const Patches patches = input_patches(s, z);
  std::vector<Product> batch;
  for (int64_t g = 0; g < s.groups; ++g) {
    const int64_t out0 = g * z.out_group;
    // The weights' K = tap * channels + channel is stored as channel * taps + tap.
    batch.push_back({{patch_operand(x.codes.at(g * z.in_group * z.image), patches, false), patches.positions(),
                      {z.grid, 1, s.out_channels * z.grid}, x.scale, {z.grid, 0, x.scale_step}},
                     {strided_operand(w.codes.at(g * z.weight_group()), z.in_group * z.taps, {z.in_group, z.taps, 1}),
                      z.out_group, Axis::flat(z.out_group, z.grid), w.scale + out0 * w.scale_step,
                      Axis::flat(z.out_group, w.scale_step)},
                     patches.taps(), advance(y, out0 * z.grid)});
  }
  engine.run(batch, accumulators, counters);
}

void conv_input_gradient(const Engine& engine, const ConvShape& s, const ConvOperand& dy, const ConvOperand& w,
                         void* dx, bool accumulators, Counters* counters) {
  const Sizes z(s);
  for (int64_t phase_y = 0; phase_y < std::min(s.stride_h, s.height); ++phase_y)
    for (int64_t phase_x = 0; phase_x < std::min(s.stride_w, s.width); ++phase_x) {
      const Patches patches = gradient_patches(s, z, phase_y, phase_x);
      const int64_t positions = patches.y.grid * patches.x.grid;
      const Axis output = {patches.x.grid, s.stride_w, s.in_channels * z.image, patches.y.grid, s.stride_h * s.width};
      std::vector<Product> batch;
      for (int64_t g = 0; g < s.groups; ++g) {
        const int64_t first = g * z.in_group * z.image + phase_y * s.width + phase_x;
        // Rows of w are input channels; K = tap * out_channels + out channel.
        batch.push_back(
            {{patch_operand(dy.codes.at(g * z.out_group * z.grid), patches, false), patches.positions(), output, dy.scale,
              {positions, 0, dy.scale_step}},
             {strided_operand(w.codes.at(g * z.weight_group()), z.taps, {z.out_group, z.in_group * z.taps, 1}), z.in_group,
              Axis::flat(z.in_group, z.image), w.scale, Axis::flat(z.in_group, w.scale_step)},
             patches.taps(), advance(dx, first)});
      }
      engine.run(batch, accumulators, counters);
    }
}

void conv_weight_gradient(const Engine& engine, const ConvShape& s, const ConvOperand& dy, const ConvOperand& x,
                          void* dw, bool accumulators, Counters* counters) {
  const Sizes z(s);
  const Patches patches = input_patches(s, z);
  std::vector<Product> batch;
  for (int64_t g = 0; g < s.groups; ++g) {
    const int64_t out0 = g * z.out_group, in0 = g * z.in_group;
    // Rows of x are (tap, channel), which dw stores as channel * taps + tap.
    batch.push_back({{strided_operand(dy.codes.at(out0 * z.grid), z.grid, {z.grid, 1, s.out_channels * z.grid}),
                      z.out_group, Axis::flat(z.out_group, z.in_group * z.taps), dy.scale + out0 * dy.scale_step,
                      Axis::flat(z.out_group, dy.scale_step)},
                     {patch_operand(x.codes.at(in0 * z.image), patches, true), patches.taps(),
                      {z.in_group, z.taps, 1}, x.scale + in0 * x.scale_step, {z.in_group, x.scale_step, 0}},
                     patches.positions(), advance(dw, g * z.weight_group())});
  }
  engine.run(batch, accumulators, counters);
}

}  // namespace lns::cpu
