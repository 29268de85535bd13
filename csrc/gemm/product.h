// A batch of equal products, described for every device; each device has an engine that runs it.
#pragma once

#include <array>
#include <cstddef>
#include <stdexcept>
#include <utility>
#include <vector>

#include "gemm/operand.h"

namespace lns {

// One operand, where row i's scale stands, and where its results go.
struct Side {
  OperandView operand;
  int64_t rows;
  Axis output;  // offset of a row in the output
  const float* scale;
  Axis scale_axis;
  // Block scales: the shift of (row, block of K), seen as a code of 8 bits; no data: the side has none.
  OperandView shifts = {};
};

// Where one product of a batch begins, in elements from the first one's pointers.
struct Offsets {
  int64_t left = 0, right = 0, left_scale = 0, right_scale = 0, output = 0, left_shift = 0, right_shift = 0;
};

// The dimensions over which a product is repeated, the last one fastest.
struct Batch {
  static constexpr int kDims = 8;
  int dims = 0;
  int64_t sizes[kDims] = {};
  Offsets strides[kDims] = {};

  // Appends a faster dimension, merging it with the last one where one stride serves both.
  void add(int64_t size, const Offsets& stride) {
    if (size == 1) return;
    if (dims > 0) {
      Offsets& s = strides[dims - 1];
      if (s.left == stride.left * size && s.right == stride.right * size && s.left_scale == stride.left_scale * size &&
          s.right_scale == stride.right_scale * size && s.output == stride.output * size &&
          s.left_shift == stride.left_shift * size && s.right_shift == stride.right_shift * size) {
        sizes[dims - 1] *= size;
        s = stride;
        return;
      }
    }
    if (dims == kDims)
      throw std::invalid_argument("too many batch dimensions of different strides; make operands contiguous");
    sizes[dims] = size;
    strides[dims++] = stride;
  }
  // Of the same products with the operands' sides exchanged.
  Batch exchanged() const {
    Batch b = *this;
    for (Offsets& s : b.strides) {
      std::swap(s.left, s.right);
      std::swap(s.left_scale, s.right_scale);
      std::swap(s.left_shift, s.right_shift);
    }
    return b;
  }
  LNS_HD int64_t count() const {
    int64_t n = 1;
    for (int d = 0; d < dims; ++d) n *= sizes[d];
    return n;
  }
  LNS_HD Offsets at(int64_t i) const {
    Offsets o;
    for (int d = dims - 1; d >= 0; --d) {
      const int64_t index = i % sizes[d];
      i /= sizes[d];
      o.left += index * strides[d].left;
      o.right += index * strides[d].right;
      o.left_scale += index * strides[d].left_scale;
      o.right_scale += index * strides[d].right_scale;
      o.output += index * strides[d].output;
      o.left_shift += index * strides[d].left_shift;
      o.right_shift += index * strides[d].right_shift;
    }
    return o;
  }
};

// output[left.output(i) + right.output(j)] = dot(left row i, right row j), for every i, j and every one of the batch.
struct Product {
  Side left, right;
  int64_t k;
  void* output;  // float32, or int32 if accumulators are asked for
  Batch batch;
  int64_t block = 0;  // elements of K that share a shift, a multiple of the vector size; 0: neither side has shifts

  LNS_HD int64_t blocks() const { return (k + block - 1) / block; }
  bool empty() const { return left.rows == 0 || right.rows == 0 || batch.count() == 0; }
};

// What happened in the datapath, for users who size one. The operators' tensor is this struct, integer by integer.
struct Counters {
  int64_t vectors = 0;      // accumulations
  int64_t saturations = 0;  // accumulations that left acc_bits
  int64_t zero_lanes = 0;   // products with a zero operand (padding of the last vector not counted)
  int64_t vanished = 0;     // products of non-zero operands under the accumulator's LSB
  int64_t cancelled = 0;    // in the log domain: sums of a number and its negative
};
constexpr int kCounters = sizeof(Counters) / sizeof(int64_t);

// Their names, in that order.
inline std::array<const char*, kCounters> counter_names() {
  std::array<const char*, kCounters> names{};
  const auto name = [&](size_t offset, const char* n) { names[offset / sizeof(int64_t)] = n; };
  name(offsetof(Counters, vectors), "vectors");
  name(offsetof(Counters, saturations), "saturations");
  name(offsetof(Counters, zero_lanes), "zero_lanes");
  name(offsetof(Counters, vanished), "vanished");
  name(offsetof(Counters, cancelled), "cancelled");
  return names;
}

}  // namespace lns
