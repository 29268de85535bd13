// Block scales: the shifts of a product's sides, gathered for the multiplying warps, and a thread's own of one vector.
#pragma once

#include <cstdint>

#include "cuda/coordinates.cuh"
#include "gemm/product.h"

namespace lns::cuda {

// Of one side: (instance, block of K, row), rows filled up to what a warp's columns are; so a thread's stand in a word.
struct GatheredShifts {
  const uint8_t* data;
  int64_t pitch;
};
constexpr int kShiftRows = 128;   // rows come in multiples of
constexpr int kShiftBlocks = 16;  // of K; that a thread gathers, at most

inline int64_t shift_pitch(int64_t rows) { return (rows + kShiftRows - 1) / kShiftRows * kShiftRows; }

// Of a row's block of K, the side's shifts beginning at `offset`; 0 where it has none.
__device__ inline int load_shift(const Side& side, int64_t offset, int64_t row, int64_t block, int64_t blocks) {
  const OperandView& view = side.shifts;
  if (view.codes.data == nullptr || row >= side.rows) return 0;
  return load_code(view.codes.at(offset), extent(view), row_coordinates(view, row, side.rows),
                   k_coordinates(view, block, blocks));
}

// `left`: of the batch's left side, else of its right one. A thread takes four rows, of `each` blocks of K: where a row
// lies takes longer to find than what is read there. Blocks of threads: (rows, instances and shares of K).
__global__ void __launch_bounds__(256)
    gather_shifts(const __grid_constant__ Side side, const __grid_constant__ Batch batch, bool left, int64_t blocks,
                  int64_t each, int64_t pitch, uint8_t* out) {
  const OperandView& view = side.shifts;
  const Extent of_view = extent(view);
  const int64_t first = 4 * (int64_t{blockIdx.x} * blockDim.x + threadIdx.x), shares = (blocks + each - 1) / each;
  if (first >= pitch) return;
  Coordinates rows[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) rows[r] = row_coordinates(view, first + r, side.rows);
  for (int64_t i = blockIdx.y; i < batch.count() * shares; i += gridDim.y) {
    const int64_t instance = i / shares, begin = i % shares * each, end = min(blocks, begin + each);
    const Offsets offsets = batch.at(instance);
    const CodeView codes = view.codes.at(left ? offsets.left_shift : offsets.right_shift);
    uint8_t* to = out + (instance * blocks + begin) * pitch + first;
#pragma unroll 4
    for (int64_t block = begin; block < end; ++block, to += pitch) {
      const Coordinates k = k_coordinates(view, block, blocks);
      const auto shift = [&](int r) { return static_cast<uint8_t>(load_code(codes, of_view, rows[r], k)); };
      *reinterpret_cast<uchar4*>(to) = make_uchar4(shift(0), shift(1), shift(2), shift(3));
    }
  }
}

// A thread's, of R rows and four columns: bytes of words.
template <int R>
struct ThreadShifts {
  static_assert(R == 8);
  uint2 rows = {};
  uint32_t columns = 0;

  __device__ void load(const GatheredShifts& of_rows, const GatheredShifts& of_columns, int64_t block, int64_t row,
                       int64_t column) {
    rows = *reinterpret_cast<const uint2*>(of_rows.data + block * of_rows.pitch + row);
    columns = *reinterpret_cast<const uint32_t*>(of_columns.data + block * of_columns.pitch + column);
  }
  __device__ int at(int i, int j) const {
    const uint32_t row = i < 4 ? rows.x : rows.y;
    return static_cast<int>((row >> 8 * (i % 4) & 0xff) + (columns >> 8 * j & 0xff));
  }
};

struct NoShifts {
  __device__ int at(int, int) const { return 0; }
};

}  // namespace lns::cuda
