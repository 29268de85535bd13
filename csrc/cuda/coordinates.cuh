// Where the code of (row, k) of an operand lies, as two halves that only need to be added: one of the row, one of k.
#pragma once

#include "gemm/operand.h"

namespace lns::cuda {

// Adding a row's and a k's gives an element's offset, and its place in the image (0, 0 without one).
struct alignas(16) Coordinates {  // one load
  int64_t offset;
  int y, x;
};
constexpr int kOutside = -(1 << 30);  // a coordinate that is in no image, whatever is added
constexpr Coordinates kNowhere = {.offset = 0, .y = kOutside, .x = kOutside};

__device__ inline Coordinates operator+(const Coordinates& a, const Coordinates& b) {
  return {.offset = a.offset + b.offset, .y = a.y + b.y, .x = a.x + b.x};
}

struct Extent {
  unsigned y, x;
};

__device__ inline Extent extent(const OperandView& o) {
  if (o.kind == OperandView::Kind::strided) return {.y = 1, .x = 1};
  return {.y = static_cast<unsigned>(o.patches.y.image), .x = static_cast<unsigned>(o.patches.x.image)};
}

__device__ inline bool inside(const Extent& e, const Coordinates& a, const Coordinates& b) {
  return static_cast<unsigned>(a.y + b.y) < e.y && static_cast<unsigned>(a.x + b.x) < e.x;
}

// Rows, K and their levels stay below 2^31 (checked before the launch), as Divisor asks.
__device__ inline int64_t axis_offset(const Axis& a, unsigned i) {
  const unsigned m = a.inner.quotient(i);
  return a.inner.rest(i) * a.inner_stride + a.middle.rest(m) * a.middle_stride + a.middle.quotient(m) * a.outer_stride;
}

__device__ inline Coordinates position_coordinates(const Patches& p, unsigned i) {
  const auto seen = [](const PatchAxis& a, unsigned at) {
    return static_cast<int>(at * a.shrink.quotient(static_cast<unsigned>(a.grow)));
  };
  const unsigned line = p.x.grid.quotient(i), n = p.y.grid.quotient(line);
  const int y = seen(p.y, p.y.grid.rest(line)), x = seen(p.x, p.x.grid.rest(i));
  return {.offset = n * p.batch_stride + y * p.y.image_stride + x * p.x.image_stride, .y = y, .x = x};
}

__device__ inline int tap_position(const PatchAxis& a, unsigned tap) {
  const int p = static_cast<int>(tap) * static_cast<int>(a.tap_step) + static_cast<int>(a.origin);
  const unsigned distance = abs(p);
  if (a.shrink.rest(distance) != 0) return kOutside;
  const int places = static_cast<int>(a.shrink.quotient(distance));
  return p < 0 ? -places : places;
}

__device__ inline Coordinates tap_coordinates(const Patches& p, unsigned i) {
  const unsigned tap = p.channels.quotient(i), line = p.x.taps.quotient(tap);
  const int y = tap_position(p.y, line), x = tap_position(p.x, p.x.taps.rest(tap));
  return {
      .offset = p.channels.rest(i) * p.channel_stride + y * p.y.image_stride + x * p.x.image_stride, .y = y, .x = x};
}

__device__ inline Coordinates row_coordinates(const OperandView& o, int64_t row, int64_t rows) {
  if (row >= rows) return kNowhere;
  const unsigned i = static_cast<unsigned>(row);
  if (o.kind == OperandView::Kind::strided) return {.offset = i * o.row_stride, .y = 0, .x = 0};
  return o.kind == OperandView::Kind::positions ? position_coordinates(o.patches, i) : tap_coordinates(o.patches, i);
}

__device__ inline Coordinates k_coordinates(const OperandView& o, int64_t k, int64_t end) {
  if (k >= end) return kNowhere;
  const unsigned i = static_cast<unsigned>(k);
  if (o.kind == OperandView::Kind::strided) return {.offset = axis_offset(o.k_axis, i), .y = 0, .x = 0};
  return o.kind == OperandView::Kind::positions ? tap_coordinates(o.patches, i) : position_coordinates(o.patches, i);
}

// *at, or 0 unless `there`: a predicate, as a branch would keep few loads in flight.
#define LNS_LOAD_IF(Word, size)                                                                     \
  __device__ inline uint32_t load_if(bool there, const Word* at) {                                  \
    uint32_t word;                                                                                  \
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.u32 %0, 0; @p ld.global.nc." size " %0, [%1]; }" \
        : "=r"(word)                                                                                \
        : "l"(at), "r"(static_cast<uint32_t>(there)));                                              \
    return word;                                                                                    \
  }
LNS_LOAD_IF(uint8_t, "u8")
LNS_LOAD_IF(uint16_t, "u16")
LNS_LOAD_IF(uint32_t, "u32")
#undef LNS_LOAD_IF

// A code, or 0 outside the image or the operand.
__device__ inline int load_code(const CodeView& codes, const Extent& e, const Coordinates& row, const Coordinates& k) {
  const bool there = inside(e, row, k), wide = codes.wide();
  const int64_t at = row.offset + k.offset;
  return static_cast<int>(load_if(there && !wide, static_cast<const uint8_t*>(codes.data) + at) |
                          load_if(there && wide, static_cast<const uint16_t*>(codes.data) + at));
}

}  // namespace lns::cuda
