// Codes by quantizers that draw nothing: a kernel that does not know the others takes fewer registers.
#pragma once

#include "core/quantizer.h"

namespace lns::cuda {

__device__ inline int nearest_code(const Quantizer& q, float x, int k) {
  __builtin_assume(q.rounding == Rounding::nearest && q.underflow != Underflow::stochastic);
  return quantize_one(q, float_bits(x), k, 0);
}

}  // namespace lns::cuda
