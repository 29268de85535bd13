// Operands of dot products, described for every device: where the code of (row, k) lies. Every GEMM and every pass of a
// convolution is "all rows of one operand against all rows of another, along a common K".
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/format.h"
#include "gemm/divisor.h"

namespace lns {

// Codes in memory: uint8 for formats of up to 8 bits, int16 above. Where their gamma is coarser than the datapath's, a
// step of their exponents is 2^log2_step of its steps.
struct CodeView {
  const void* data;
  Format format;
  int log2_step = 0;

  LNS_HD int exponent(int code) const { return format.exponent(code) << log2_step; }
  LNS_HD bool wide() const { return format.bits > 8; }
  LNS_HD CodeView at(int64_t offset) const {
    return {.data = static_cast<const char*>(data) + offset * (wide() ? sizeof(int16_t) : sizeof(uint8_t)),
            .format = format,
            .log2_step = log2_step};
  }
};

// Calls body with a value of the type that holds codes.
template <typename Body>
void with_code_type(const Format& f, Body body) {
  if (f.bits > 8)
    body(int16_t{});
  else
    body(uint8_t{});
}

// An index of up to three levels: i = (outer * middle + m) * inner + n lies at the sum of its levels' strides.
struct Axis {
  Divisor inner = 1;
  int64_t inner_stride = 0;
  int64_t outer_stride = 0;
  Divisor middle = 1;
  int64_t middle_stride = 0;

  static Axis flat(int64_t n, int64_t stride) { return {.inner = n > 0 ? n : 1, .inner_stride = stride}; }
  int64_t operator()(int64_t i) const {
    const int64_t m = i / inner;
    return i % inner * inner_stride + m % middle * middle_stride + m / middle * outer_stride;
  }
  // Calls body(offset of i) for i = first .. first + n - 1, without a division for each.
  template <typename Body>
  void walk(int64_t first, int64_t n, Body body) const {
    while (n > 0) {
      const int64_t start = first % inner, run = std::min(n, inner - start), base = (*this)(first);
      for (int64_t i = 0; i < run; ++i) body(base + i * inner_stride);
      first += run;
      n -= run;
    }
  }
};

// The geometry of patches in a batch of images: at tap (i, j) the grid position (y, x) sees the image at
// (y*grow + i*tap_step + origin) / shrink, and zero outside the image or where the division leaves a rest.
// A forward pass has grow = stride, tap_step = dilation, origin = -padding, shrink = 1. An input gradient sees the
// output gradient from every stride-th position: grow = shrink = stride, tap_step = -dilation, origin = padding +
// phase; so whether the division leaves a rest depends on the tap alone. grow is a multiple of shrink.
struct PatchAxis {
  Divisor grid;  // extents
  int64_t image;
  Divisor taps;
  int64_t grow, tap_step, origin;
  Divisor shrink;
  int64_t image_stride;

  int64_t position(int64_t grid_index, int64_t tap) const { return grid_index * grow + tap * tap_step + origin; }
  // The image index seen, or -1.
  int64_t seen(int64_t grid_index, int64_t tap) const {
    const int64_t p = position(grid_index, tap);
    return p >= 0 && p % shrink == 0 && p / shrink < image ? p / shrink : -1;
  }
};

struct Patches {
  PatchAxis y, x;
  int64_t batch;
  Divisor channels;
  int64_t batch_stride, channel_stride;

  int64_t positions() const { return batch * y.grid * x.grid; }  // (n, y, x), x fastest
  int64_t taps() const { return y.taps * x.taps * channels; }    // (i, j, channel), channel fastest
};

// Codes at row * row_stride + k_axis(k) (a matrix of any strides, a convolution's weights, its output gradient), or the
// patch matrix or its transpose, read straight from the image.
struct OperandView {
  enum class Kind { strided, positions, taps };  // what rows are; K runs over taps, or over positions

  CodeView codes = {};
  Kind kind = Kind::strided;
  int64_t row_stride = 0;
  Axis k_axis = {};
  Patches patches = {};

  static OperandView strided(const CodeView& codes, int64_t row_stride, const Axis& k_axis) {
    return {.codes = codes, .kind = Kind::strided, .row_stride = row_stride, .k_axis = k_axis, .patches = {}};
  }
  static OperandView positions(const CodeView& codes, const Patches& patches) {
    return {.codes = codes, .kind = Kind::positions, .row_stride = 0, .k_axis = {}, .patches = patches};
  }
  static OperandView taps(const CodeView& codes, const Patches& patches) {
    return {.codes = codes, .kind = Kind::taps, .row_stride = 0, .k_axis = {}, .patches = patches};
  }

  // Are consecutive rows, rather than consecutive K, neighbours in memory? Tiles are filled fastest in that order.
  LNS_HD bool rows_are_contiguous() const {
    return kind == Kind::strided ? row_stride == 1 && k_axis.inner_stride != 1 : kind == Kind::positions;
  }
};

}  // namespace lns
