// Counters that need no accumulation: how many vectors there are, which products have a zero operand, and which vanish.
#pragma once

#include "core/datapath.h"
#include "cuda/coordinates.cuh"
#include "cuda/counting.h"
#include "gemm/product.h"

namespace lns::cuda {

constexpr int kLevels = 8192;  // exponents counted at once

// From a histogram of the left rows' exponents for every k: O(K * (rows + columns)). A block takes `depth` values of k
// of one instance at a time, and formats of more than kLevels exponents in several windows of them.
__global__ void __launch_bounds__(256) count_lanes(const __grid_constant__ Product p, int levels, int64_t first_visible,
                                                   int depth, unsigned long long vectors, Counters* counters) {
  extern __shared__ int at_most[];  // [depth][window]: rows of exponent base + i, then of exponents base .. base + i
  const int window = min(levels, kLevels);
  const Extent left_extent = extent(p.left.operand), right_extent = extent(p.right.operand);
  const int64_t groups = (p.k + depth - 1) / depth, units = groups * p.batch.count();
  unsigned long long zeros = 0, lost = 0;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const Offsets offsets = p.batch.at(unit / groups);
    const CodeView left = p.left.operand.codes.at(offsets.left), right = p.right.operand.codes.at(offsets.right);
    const int64_t k0 = unit % groups * depth;
    const int here = static_cast<int>(min(static_cast<int64_t>(depth), p.k - k0));
    if (threadIdx.x == 0) zeros += static_cast<unsigned long long>(p.left.rows) * p.right.rows * here;
    for (int base = 0; base < levels; base += window) {
      __syncthreads();
      for (int i = threadIdx.x; i < depth * window; i += blockDim.x) at_most[i] = 0;
      __syncthreads();
      for (int64_t r = threadIdx.x; r < p.left.rows; r += blockDim.x) {
        const Coordinates row = row_coordinates(p.left.operand, r, p.left.rows);
        for (int d = 0; d < here; ++d) {
          const int e = left.exponent(load_code(left, left_extent, row, k_coordinates(p.left.operand, k0 + d, p.k)));
          if (e != 0 && e >= base && e < base + window) atomicAdd(&at_most[d * window + e - base], 1);
        }
      }
      __syncthreads();
      for (int d = threadIdx.x; d < here; d += blockDim.x)
        for (int i = 1; i < window; ++i) at_most[d * window + i] += at_most[d * window + i - 1];
      __syncthreads();
      for (int64_t r = threadIdx.x; r < p.right.rows; r += blockDim.x) {
        const Coordinates row = row_coordinates(p.right.operand, r, p.right.rows);
        for (int d = 0; d < here; ++d) {
          const int e =
              right.exponent(load_code(right, right_extent, row, k_coordinates(p.right.operand, k0 + d, p.k)));
          if (e == 0) continue;
          zeros -= at_most[d * window + window - 1];
          const int64_t limit = min(first_visible - 1 - e, static_cast<int64_t>(base + window - 1)) - base;
          if (limit >= 0) lost += at_most[d * window + limit];
        }
      }
    }
  }
  // Modulo 2^64, as are the threads' shares.
  if (blockIdx.x == 0 && threadIdx.x == 0) atomicAdd(as_unsigned(&counters->vectors), vectors);
  atomicAdd(as_unsigned(&counters->zero_lanes), zeros);
  if (lost) atomicAdd(as_unsigned(&counters->vanished), lost);
}

}  // namespace lns::cuda
