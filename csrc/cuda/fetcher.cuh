// Fetching: codes of an operand, straight from where they lie, as lanes in shared memory.
#pragma once

#include "cuda/coordinates.cuh"
#include "cuda/product_table.h"
#include "gemm/operand.h"

namespace lns::cuda {

constexpr int kChunk = 32;    // lanes in a buffer
constexpr int kFetchers = 4;  // warps that fetch

// Of a tile's k, in lanes: two words more than the rows, for few bank conflicts.
__host__ __device__ inline int pitch_of(int rows) { return rows + 4; }

// As load_if of a code.
__device__ inline uint32_t load_four_if(bool there, const uint8_t* at) {
  uint32_t codes;
  asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.u32 %0, 0; @p ld.global.nc.u32 %0, [%1]; }"
      : "=r"(codes)
      : "l"(at), "r"(static_cast<uint32_t>(there)));
  return codes;
}

// One warp's share of filling a side's chunks, four rows to a store. Threads go along whatever is contiguous in memory,
// rows or K. Of the two halves of an element's coordinates one then stays in a thread's registers, and the other is the
// same for the whole warp.
class Fetcher {
 public:
  // `row_coordinates`: of a tile's rows, made by the caller; `ks`: room for a chunk's coordinates, this warp's own.
  __device__ Fetcher(const OperandView& operand, const LaneCode& lane_code, int rows,
                     const Coordinates* row_coordinates, Coordinates* ks, int fetcher)
      : operand_(operand),
        lane_code_(lane_code),
        strided_(operand.kind == OperandView::Kind::strided),
        by_rows_(strided_ ? operand.row_stride < operand.k_axis.inner_stride
                          : operand.kind == OperandView::Kind::positions),
        extent_(extent(operand)),
        rows_(rows),
        row_coordinates_(row_coordinates),
        ks_(ks),
        fetcher_(fetcher),
        lane_(threadIdx.x % 32),
        exponents_(static_cast<uint32_t>(operand.codes.format.e_max()) * 0x00010001),
        sign_shift_(operand.codes.format.bits - 1) {}

  // Takes up a tile whose rows' coordinates are there: `left` rows from its first one on, in codes from `offset` on.
  __device__ void start_tile(int64_t offset, int64_t left) {
    codes_ = operand_.codes.at(offset).data;
    valid_ = static_cast<int>(min(static_cast<int64_t>(rows_), left));
    by_fours_ = fours_are_words();
    if (!by_rows_) return;
#pragma unroll
    for (int i = 0; i < kRounds; ++i)
#pragma unroll
      for (int u = 0; u < 4; ++u)
        if (first_row() + i * step() < rows_) fixed_[i][u] = row_coordinates_[first_row() + i * step() + u];
  }

  // tile[k, row] = lane of (row, k0 + k), zero from k = end and from the last row on.
  __device__ void fill(int64_t k0, int64_t end, uint16_t* tile) const {
    const Coordinates mine = k_coordinates(operand_, k0 + lane_, end);
    if (by_rows_) {
      __syncwarp();
      ks_[lane_] = mine;
      __syncwarp();
    }
    if (operand_.codes.wide())
      fill_from(static_cast<const uint16_t*>(codes_), mine, tile);
    else if (by_fours_)
      fill_along_rows(tile, [&](int row, const Coordinates(&fixed)[4], const Coordinates& k) {
        const uint8_t* at = static_cast<const uint8_t*>(codes_) + (fixed[0].offset + k.offset);
        const uint32_t codes = load_four_if(k.y == 0 && row < valid_, at);
        return make_uint2(__byte_perm(codes, 0, 0x4140), __byte_perm(codes, 0, 0x4342));
      });
    else
      fill_from(static_cast<const uint8_t*>(codes_), mine, tile);
  }

 private:
  // A code at a time.
  template <typename Code>
  __device__ void fill_from(const Code* codes, const Coordinates& mine, uint16_t* tile) const {
    const auto load_if_inside = [&](const Coordinates& row, const Coordinates& k) {
      return load_if(inside(extent_, row, k), codes + (row.offset + k.offset));
    };
    if (by_rows_)
      fill_along_rows(tile, [&](int, const Coordinates(&fixed)[4], const Coordinates& k) {
        return four([&](int u) { return load_if_inside(fixed[u], k); });
      });
    else if (strided_)
      fill_along_k(tile, [&](int row) {
        const Code* at = codes + (row_coordinates_[row].offset + mine.offset);
        return four([&](int u) { return load_if(mine.y == 0 && row + u < valid_, at + u * operand_.row_stride); });
      });
    else
      fill_along_k(
          tile, [&](int row) { return four([&](int u) { return load_if_inside(row_coordinates_[row + u], mine); }); });
  }

  // The codes of four rows, two to a word.
  template <typename Load>
  __device__ static uint2 four(Load load) {
    uint32_t code[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) code[u] = load(u);
    return make_uint2(code[0] | code[1] << 16, code[2] | code[3] << 16);
  }

  // Both go in pairs, so that eight loads are under way; a tile has a multiple of 32 rows.
  template <typename Load>
  __device__ void fill_along_k(uint16_t* tile, Load load) const {
    constexpr int step = kFetchers * 4;
    uint16_t* to = tile + lane_ * pitch_of(rows_);
    for (int row = fetcher_ * 4; row < rows_; row += 2 * step) {
      const uint2 codes = load(row), next = load(row + step);
      store(codes, to + row);
      store(next, to + row + step);
    }
  }
  template <typename Load>
  __device__ void fill_along_rows(uint16_t* tile, Load load) const {
    constexpr int share = kChunk / kFetchers;
    const int pitch = pitch_of(rows_), threads = step() / 4,
              ks = 32 / threads;  // of one k; that the warp takes at once
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      const int row = first_row() + i * step();
      if (row >= rows_) break;
      for (int j = lane_ / threads; j < share; j += 2 * ks) {
        const int k = fetcher_ * share + j;
        const uint2 codes = load(row, fixed_[i], ks_[k]), next = load(row, fixed_[i], ks_[k + ks]);
        store(codes, tile + k * pitch + row);
        store(next, tile + (k + ks) * pitch + row);
      }
    }
  }

  __device__ void store(const uint2& codes, uint16_t* to) const {
    *reinterpret_cast<uint2*>(to) = make_uint2(lanes(codes.x), lanes(codes.y));
  }

  // Of two codes, a half of the word each.
  __device__ uint32_t lanes(uint32_t codes) const {
    const uint32_t exponents = (codes & exponents_) << operand_.codes.log2_step;
    const uint32_t present = (exponents + 0x7fff7fff) >> 15 & 0x00010001;
    const uint32_t negative = codes >> sign_shift_ & present;
    return exponents + present * lane_code_.zero_shift + negative * lane_code_.sign_step;
  }

  // Is every four rows' code at every k one aligned word, wholly inside or outside?
  __device__ bool fours_are_words() const {
    const Axis& k = operand_.k_axis;
    return !operand_.codes.wide() && strided_ && operand_.row_stride == 1 && valid_ % 4 == 0 &&
           (reinterpret_cast<uintptr_t>(codes_) | k.inner_stride | k.middle_stride | k.outer_stride) % 4 == 0;
  }

  // Along rows: a thread's first one, and how many the warp takes in a round.
  __device__ int step() const { return min(32 * 4, rows_); }
  __device__ int first_row() const { return lane_ % (step() / 4) * 4; }

  static constexpr int kRounds = 2;  // for up to 256 rows
  const OperandView& operand_;
  const LaneCode& lane_code_;
  bool strided_, by_rows_;
  Extent extent_;
  int rows_;
  const Coordinates* row_coordinates_;
  Coordinates* ks_;
  int fetcher_, lane_;
  uint32_t exponents_;  // a code's exponent bits, in both halves
  int sign_shift_;
  // Of the tile.
  const void* codes_;
  int valid_;
  bool by_fours_;
  Coordinates fixed_[kRounds][4];
};

}  // namespace lns::cuda
