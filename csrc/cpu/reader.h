// Readers of operands: each hands out tiles of an operand's rows without ever storing a matrix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cpu/tile.h"
#include "gemm/operand.h"

namespace lns::cpu {

// What the kernels compute on, in the datapath's exponents. Row path: sign at bit 7 over a 7-bit exponent. Look-up
// path: the signed exponent.
template <typename Lane>
inline Lane to_lane(const Format& f, int log2_step, int code) {
  const int e = f.exponent(code) << log2_step;
  if constexpr (sizeof(Lane) == 1)
    return static_cast<Lane>(f.negative(code) && e ? 128 | e : e);
  else
    return static_cast<Lane>(f.negative(code) ? -e : e);
}

// Hands out tiles of rows: tile[r, d] = lane of (row0 + r, k0 + d) for r < rows, d < depth.
class Reader {
 public:
  virtual ~Reader() = default;
  virtual void fill(uint8_t* tile, TileStrides strides, int64_t row0, int64_t rows, int64_t k0,
                    int64_t depth) const = 0;
  virtual void fill(int16_t* tile, TileStrides strides, int64_t row0, int64_t rows, int64_t k0,
                    int64_t depth) const = 0;
};

// What all readers share: the conversion of a run of codes, and one templated fill_tile behind the two virtual ones.
template <typename Self, typename Code>
class ReaderOf : public Reader {
 public:
  explicit ReaderOf(const CodeView& codes) : format_(codes.format), log2_step_(codes.log2_step) {}

  void fill(uint8_t* tile, TileStrides strides, int64_t row0, int64_t rows, int64_t k0, int64_t depth) const override {
    static_cast<const Self*>(this)->fill_tile(tile, strides, row0, rows, k0, depth);
  }
  void fill(int16_t* tile, TileStrides strides, int64_t row0, int64_t rows, int64_t k0, int64_t depth) const override {
    static_cast<const Self*>(this)->fill_tile(tile, strides, row0, rows, k0, depth);
  }

 protected:
  // to[i * to_stride] = lane of from[i * from_stride].
  template <typename Lane>
  void convert(Lane* to, int64_t to_stride, const Code* from, int64_t from_stride, int64_t n) const {
    if constexpr (sizeof(Lane) == 1 && sizeof(Code) == 1) {
      if (format_.bits == 8 && log2_step_ == 0) {  // an 8-bit code is its lane; -0 counts as 0 to every path
        if (to_stride == 1 && from_stride == 1) return copy(to, from, n);
        for (int64_t i = 0; i < n; ++i) to[i * to_stride] = from[i * from_stride];
        return;
      }
      // The same for shorter codes, in operations on bytes, of which vectors hold the most.
      const uint8_t magnitude = static_cast<uint8_t>(format_.e_max()), sign = static_cast<uint8_t>(format_.sign_bit());
      const int step = log2_step_;
      for (int64_t i = 0; i < n; ++i) {
        const uint8_t code = from[i * from_stride];
        to[i * to_stride] = static_cast<uint8_t>((code & magnitude) << step | ((code & sign) ? 128 : 0));
      }
      return;
    }
    const Format f = format_;
    const int step = log2_step_;
    for (int64_t i = 0; i < n; ++i) to[i * to_stride] = to_lane<Lane>(f, step, from[i * from_stride]);
  }

 private:
  // Runs are often a single vector long: cheaper inline than as a call.
  static void copy(uint8_t* to, const uint8_t* from, int64_t n) {
    if (n > 256) {
      memcpy(to, from, n);
      return;
    }
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) memcpy(to + i, from + i, 16);
    for (; i < n; ++i) to[i] = from[i];
  }

  Format format_;
  int log2_step_;
};

// Codes at base + row * row_stride + k_axis(k): a matrix of any strides, a convolution's weights, its output gradient.
template <typename Code>
class StridedReader : public ReaderOf<StridedReader<Code>, Code> {
 public:
  StridedReader(const CodeView& codes, int64_t row_stride, const Axis& k_axis)
      : ReaderOf<StridedReader<Code>, Code>(codes),
        base_(static_cast<const Code*>(codes.data)),
        row_stride_(row_stride),
        k_axis_(k_axis) {}

  template <typename Lane>
  void fill_tile(Lane* tile, TileStrides strides, int64_t row0, int64_t rows, int64_t k0, int64_t depth) const {
    const Code* first = base_ + row0 * row_stride_;
    for (int64_t d = 0; d < depth;) {
      const int64_t k = k0 + d, run = std::min(depth - d, k_axis_.inner - k % k_axis_.inner);
      const Code* from = first + k_axis_(k);
      if (k_axis_.inner_stride < row_stride_) {  // walk memory in order
        for (int64_t r = 0; r < rows; ++r)
          this->convert(tile + r * strides.row + d * strides.depth, strides.depth, from + r * row_stride_,
                        k_axis_.inner_stride, run);
      } else if (strides.depth == 1) {  // transpose in strips of as many lines as stay in cache
        for (int64_t i = 0; i < run; i += kStrip)
          for (int64_t r = 0; r < rows; ++r)
            this->convert(tile + r * strides.row + d + i, 1, from + i * k_axis_.inner_stride + r * row_stride_,
                          k_axis_.inner_stride, std::min(kStrip, run - i));
      } else {
        for (int64_t i = 0; i < run; ++i)
          this->convert(tile + (d + i) * strides.depth, strides.row, from + i * k_axis_.inner_stride, row_stride_,
                        rows);
      }
      d += run;
    }
  }

 private:
  static constexpr int64_t kStrip = 32;
  const Code* base_;
  int64_t row_stride_;
  Axis k_axis_;
};

// The patch matrix or its transpose, read straight from the image.
template <typename Code>
class PatchReader : public ReaderOf<PatchReader<Code>, Code> {
 public:
  // `taps_are_rows`: rows are taps and K runs over positions (weight gradient), instead of the reverse.
  PatchReader(const CodeView& codes, const Patches& patches, bool taps_are_rows)
      : ReaderOf<PatchReader<Code>, Code>(codes),
        image_(static_cast<const Code*>(codes.data)),
        p_(patches),
        taps_are_rows_(taps_are_rows) {}

  template <typename Lane>
  void fill_tile(Lane* tile, TileStrides strides, int64_t row0, int64_t rows, int64_t k0, int64_t depth) const {
    if (taps_are_rows_) {
      for (int64_t r = 0; r < rows; ++r) positions(tile + r * strides.row, strides.depth, row0 + r, k0, depth);
    } else {
      for (int64_t d = 0; d < depth; ++d) positions(tile + d * strides.depth, strides.row, k0 + d, row0, rows);
    }
  }

 private:
  // out[i * step] = lane seen at `tap` from positions first, first + 1, ...
  template <typename Lane>
  void positions(Lane* out, int64_t step, int64_t tap, int64_t first, int64_t count) const {
    const int64_t channel = tap % p_.channels, ij = tap / p_.channels;
    const int64_t i = ij / p_.x.taps, j = ij % p_.x.taps;
    int64_t x = first % p_.x.grid, y = first / p_.x.grid % p_.y.grid, n = first / p_.x.grid / p_.y.grid;
    if (planes_align()) return planes(out, step, channel, n, y * p_.x.grid + x, count, i, j);
    while (count > 0) {
      const int64_t run = std::min(count, p_.x.grid - x), row = p_.y.seen(y, i);
      if (row < 0)
        zero(out, step, run);
      else
        copy_line(out, step, image_ + n * p_.batch_stride + channel * p_.channel_stride + row * p_.y.image_stride, x,
                  run, j);
      out += run * step;
      count -= run;
      x = 0;
      if (++y == p_.y.grid) {
        y = 0;
        ++n;
      }
    }
  }

  // Is the grid as large as the image, with neighbours seeing neighbours? Then a plane of positions sees the image's
  // plane, moved, and is copied whole.
  bool planes_align() const {
    const auto aligned = [](const PatchAxis& a) { return a.grow == a.shrink && a.grid == a.image; };
    return aligned(p_.x) && aligned(p_.y) && p_.x.image_stride == 1 && p_.y.image_stride == p_.x.image;
  }

  // What `count` positions see through tap (i, j), from position `first` of plane n on.
  template <typename Lane>
  void planes(Lane* out, int64_t step, int64_t channel, int64_t n, int64_t first, int64_t count, int64_t i,
              int64_t j) const {
    const int64_t width = p_.x.grid, size = width * p_.y.grid;
    const int64_t move_y = p_.y.position(0, i), move_x = p_.x.position(0, j);
    const bool seen = move_y % p_.y.shrink == 0 && move_x % p_.x.shrink == 0;
    const int64_t dy = move_y / p_.y.shrink, dx = move_x / p_.x.shrink, move = dy * width + dx;
    if (!seen || std::abs(dy) >= p_.y.grid || std::abs(dx) >= width) return zero(out, step, count);
    for (; count > 0; ++n, first = 0) {
      const int64_t run = std::min(count, size - first), last = first + run;
      const Code* plane = image_ + n * p_.batch_stride + channel * p_.channel_stride;
      const int64_t begin = std::clamp(std::max(-dy * width, -move), first, last);
      const int64_t end = std::clamp(std::min(size - dy * width, size - move), begin, last);
      zero(out, step, begin - first);
      this->convert(out + (begin - first) * step, step, plane + begin + move, 1, end - begin);
      zero(out + (end - first) * step, step, last - end);
      // Columns whose neighbour lies in another line of the plane.
      for (int64_t column = dx < 0 ? 0 : width - dx; column < (dx < 0 ? -dx : width); ++column)
        for (int64_t p = (column - first % width + width) % width; p < run; p += width) out[p * step] = 0;
      out += run * step;
      count -= run;
    }
  }

  // What positions x .. x + run - 1 of a line see through a tap.
  template <typename Lane>
  void copy_line(Lane* out, int64_t step, const Code* line, int64_t x, int64_t run, int64_t tap) const {
    const PatchAxis& a = p_.x;
    const int64_t position = a.position(x, tap);
    if (position % a.shrink != 0) return zero(out, step, run);
    const int64_t at = position / a.shrink, stride = a.grow / a.shrink;
    // The first position inside the image, and the first one past it.
    const int64_t begin = std::clamp<int64_t>(at >= 0 ? 0 : (-at + stride - 1) / stride, 0, run);
    const int64_t end = std::clamp<int64_t>(at >= a.image ? 0 : (a.image - at + stride - 1) / stride, begin, run);
    zero(out, step, begin);
    this->convert(out + begin * step, step, line + (at + begin * stride) * a.image_stride, stride * a.image_stride,
                  end - begin);
    zero(out + end * step, step, run - end);
  }

  template <typename Lane>
  static void zero(Lane* out, int64_t step, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i * step] = 0;
  }

  const Code* image_;
  Patches p_;
  bool taps_are_rows_;
};

template <typename Code>
std::unique_ptr<const Reader> new_reader(const OperandView& o, const CodeView& codes) {
  if (o.kind == OperandView::Kind::strided) return std::make_unique<StridedReader<Code>>(codes, o.row_stride, o.k_axis);
  return std::make_unique<PatchReader<Code>>(codes, o.patches, o.kind == OperandView::Kind::taps);
}

// Reads an operand whose codes begin `offset` elements further on.
inline std::unique_ptr<const Reader> new_reader(const OperandView& o, int64_t offset) {
  const CodeView codes = o.codes.at(offset);
  return codes.wide() ? new_reader<int16_t>(o, codes) : new_reader<uint8_t>(o, codes);
}

}  // namespace lns::cpu
