// Products on datapaths with bins of bounded width, where a vector's sum is not linear in its products: a thread an
// output, lane by lane, as the hardware does it. Plain, and an order of magnitude slower than gemm_kernel.cuh.
#pragma once

#include <cstdlib>
#include <vector>

#include "core/datapath.h"
#include "cuda/coordinates.cuh"
#include "cuda/shifts.cuh"
#include "gemm/product.h"

namespace lns::cuda {

constexpr int kBinSide = 16, kBinThreads = kBinSide * kBinSide, kBinDepth = 32;  // a tile, and its lanes at a time
constexpr int kSharedBins = 16;  // whose sums have room in shared memory

// One behind the other: for every sum of exponents what a lane adds, and to which bin; every bin's constant.
struct BinTable {
  int sums, bins;
  std::vector<int64_t> all;

  explicit BinTable(const Datapath& d) {
    const LaneTable lanes = lane_table(d);
    std::vector<int64_t> constants = lut_constants(d);
    if (d.bins == Bins::by_sign)  // the negative products' bins stand behind the others
      for (int j = 0; j < d.lut_entries; ++j) constants.push_back(-constants[j]);
    sums = static_cast<int>(lanes.ones.size()), bins = static_cast<int>(constants.size());
    all = lanes.ones;
    all.insert(all.end(), lanes.bins.begin(), lanes.bins.end());
    all.insert(all.end(), constants.begin(), constants.end());
  }
};

struct BinnedProduct {
  Product product;
  Datapath datapath;
  int sums, bins;
  const int64_t* table;  // a BinTable's
  int64_t* scratch;      // bins of every thread, where shared memory has no room
  bool accumulators;
  unsigned long long* overflows;  // null: not counted
  int64_t tiles_r, tiles_c, tiles;
};

// One output's bins and accumulator.
class BinSums {
 public:
  __device__ BinSums(const BinnedProduct& b, int64_t* bins)
      : d_(b.datapath),
        accumulator_(b.datapath),
        ones_(b.table),
        bin_of_(b.table + b.sums),
        constants_(bin_of_ + b.sums),
        count_(b.bins),
        by_sign_(b.datapath.bins == Bins::by_sign),
        bins_(bins) {
    for (int j = 0; j < count_; ++j) bins_[j * kBinThreads] = 0;
  }
  // Lanes are exponents with the codes' signs, 0 of zero codes.
  __device__ void add(int a, int b) {
    if (a == 0 || b == 0) return;
    const int p = abs(a) + abs(b);
    const bool minus = (a ^ b) < 0;
    const int64_t bin = bin_of_[p] + (by_sign_ && minus ? count_ / 2 : 0);
    bins_[bin * kBinThreads] += minus && !by_sign_ ? -ones_[p] : ones_[p];
  }
  // `shift`: of the vector's blocks.
  __device__ void close(int shift) {
    int64_t y = 0;
    for (int j = 0; j < count_; ++j) {
      const int64_t sum = bins_[j * kBinThreads];
      const int64_t kept =
          by_sign_ ? magnitude_in_bits(sum, d_.bin_bits, d_.bin_overflow) : in_bits(sum, d_.bin_bits, d_.bin_overflow);
      overflows += kept != sum;
      y += kept * constants_[j];
      bins_[j * kBinThreads] = 0;
    }
    const int64_t sum = accumulator_.shifted(y, shift) + acc;
    overflows += accumulator_.overflows(sum);
    acc = static_cast<int32_t>(accumulator_.narrow(sum));
  }

  int32_t acc = 0;
  unsigned long long overflows = 0;

 private:
  const Datapath& d_;
  Accumulator<int64_t> accumulator_;
  const int64_t *ones_, *bin_of_, *constants_;
  int count_;
  bool by_sign_;
  int64_t* bins_;
};

__device__ inline int signed_exponent(const CodeView& codes, const Extent& e, const Coordinates& row,
                                      const Coordinates& k) {
  const int code = load_code(codes, e, row, k), exponent = codes.exponent(code);
  return codes.format.negative(code) ? -exponent : exponent;
}

__global__ void __launch_bounds__(kBinThreads) multiply_in_bins(const __grid_constant__ BinnedProduct b) {
  extern __shared__ int64_t shared_bins[];
  __shared__ int16_t lanes[2][kBinDepth][kBinSide];
  const Product& p = b.product;
  const int thread = threadIdx.x, r = thread / kBinSide, c = thread % kBinSide;
  int64_t* bins = b.scratch ? b.scratch + int64_t{blockIdx.x} * b.bins * kBinThreads : shared_bins;
  BinSums sums(b, bins + thread);
  for (int64_t i = blockIdx.x; i < b.tiles; i += gridDim.x) {
    const int64_t instance = i / (b.tiles_r * b.tiles_c);
    const Offsets o = p.batch.at(instance);
    const int64_t row = i / b.tiles_c % b.tiles_r * kBinSide, column = i % b.tiles_c * kBinSide;
    const auto fetch = [&](const Side& side, int64_t first, int64_t offset, int64_t k0, int16_t(*to)[kBinSide]) {
      const CodeView codes = side.operand.codes.at(offset);
      const Coordinates k = k_coordinates(side.operand, k0 + thread % kBinDepth, p.k);
      for (int at = thread / kBinDepth; at < kBinSide; at += kBinThreads / kBinDepth)
        to[thread % kBinDepth][at] = static_cast<int16_t>(
            signed_exponent(codes, extent(side.operand), row_coordinates(side.operand, first + at, side.rows), k));
    };
    const auto shift_at = [&](int64_t k) {
      if (p.block == 0) return 0;
      return load_shift(p.left, o.left_shift, row + r, k / p.block, p.blocks()) +
             load_shift(p.right, o.right_shift, column + c, k / p.block, p.blocks());
    };
    sums.acc = 0;
    int lanes_left = b.datapath.vector_size;
    for (int64_t k0 = 0; k0 < p.k; k0 += kBinDepth) {
      __syncthreads();
      fetch(p.left, row, o.left, k0, lanes[0]);
      fetch(p.right, column, o.right, k0, lanes[1]);
      __syncthreads();
      const int depth = static_cast<int>(min(static_cast<int64_t>(kBinDepth), p.k - k0));
      for (int d = 0; d < depth; ++d) {
        sums.add(lanes[0][d][r], lanes[1][d][c]);
        if (--lanes_left == 0) {
          sums.close(shift_at(k0 + d));
          lanes_left = b.datapath.vector_size;
        }
      }
    }
    if (lanes_left != b.datapath.vector_size) sums.close(shift_at(p.k - 1));
    if (row + r >= p.left.rows || column + c >= p.right.rows) continue;
    const unsigned at_row = static_cast<unsigned>(row + r), at_column = static_cast<unsigned>(column + c);
    const int64_t at = o.output + axis_offset(p.left.output, at_row) + axis_offset(p.right.output, at_column);
    if (b.accumulators) {
      static_cast<int32_t*>(p.output)[at] = sums.acc;
      continue;
    }
    const auto factor = [](const Side& side, int64_t offset, unsigned i) {
      return scale_factor(float_bits(side.scale[axis_offset(side.scale_axis, i) + offset]));
    };
    static_cast<float*>(p.output)[at] =
        read_out(sums.acc, unit_factor(b.datapath) * factor(p.left, o.left_scale, at_row) *
                               factor(p.right, o.right_scale, at_column));
  }
  if (b.overflows && sums.overflows) atomicAdd(b.overflows, sums.overflows);
}

}  // namespace lns::cuda
