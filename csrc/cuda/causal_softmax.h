// Softmax under a causal mask and its derivative, straight to codes.
#pragma once

#include <cstdint>

#include "core/quantizer.h"
#include "cuda/launch.h"

namespace lns::cuda {

// Queries of every matrix: a row of `products` for each, with those of the first `seen` keys; query i of them sees the
// first `first + i + 1` of `length` keys.
struct CausalRows {
  const float* products;
  float factor;  // of the products
  int64_t matrices, rows;
  int first, seen, length;

  LNS_HD int64_t count() const { return matrices * rows; }
};

// Rows of codes in a larger tensor: elements from matrix to matrix and from row to row.
struct CodeRows {
  void* codes;
  int64_t matrix_stride, row_stride;
};

// A scale for each row: elements from matrix to matrix.
struct RowScales {
  float* scales;
  int64_t matrix_stride;
};

// Rows of `length` codes, of queries 0 to count - 1 in each matrix, with a scale for each.
struct ScaledRows {
  CodeRows rows;
  RowScales scales;
  int64_t matrices, count;
  int length;

  LNS_HD int64_t all() const { return matrices * count; }
};

constexpr int kMostKeys = 2048;

// Of the probabilities of `seen` keys codes at `scale`, or as floats what these stand for (`values`), for which `to`
// may be the products. The scale becomes NaN where a probability is.
void causal_probabilities(const Quantizer& q, const CausalRows& rows, float* scale, void* to, bool values,
                          const Launch& at);

// Codes of `length` keys: of probabilities at their scale, and of errors (the gradients of products) at a scale of each
// row, 0 where it is all zero; codes of both have one type. `gradients` are of the probabilities and lie as `products`
// do. With `values` probabilities become as causal_probabilities', of `seen` keys.
void causal_errors(const Quantizer& of_probabilities, const Quantizer& of_errors, const CausalRows& rows,
                   const float* gradients, const float* scale, const CodeRows& probabilities, bool values,
                   const CodeRows& errors, const RowScales& error_scales, const Launch& at);

// Moves rows of codes from scales of their own to `scale`, in place.
void causal_rescale(const Quantizer& q, const ScaledRows& rows, const float* scale, const Launch& at);
// What they would stand for there, without gaps.
void causal_values(const Quantizer& q, const ScaledRows& rows, const float* scale, float* to, const Launch& at);

}  // namespace lns::cuda
