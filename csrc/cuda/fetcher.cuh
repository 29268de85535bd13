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

// Does a warp go along rows, as they are closer to each other in memory than ks?
__host__ __device__ inline bool along_rows(const OperandView& o) {
  return o.kind == OperandView::Kind::strided ? o.row_stride < o.k_axis.inner_stride
                                              : o.kind == OperandView::Kind::positions;
}

// Puts down the coordinates of a tile's `rows` rows, of which place(i) are the i-th's; this is the `thread`-th of so
// many threads. They stand so that threads that go along rows, four each, meet in no bank.
template <typename Place>
__device__ inline void place_rows(const OperandView& operand, bool words, unsigned rows, Coordinates* to,
                                  unsigned thread, unsigned threads, Place place) {
  const unsigned step = words && along_rows(operand) ? 4 : 1;
  for (unsigned row = thread * step; row < rows; row += threads * step) to[row % 4 * (rows / 4) + row / 4] = place(row);
}

// One warp's share of filling a side's chunks, four rows to a store. Threads go along whatever is contiguous in memory,
// rows or K.
class Fetcher {
 public:
  // `words`: four neighbours along what is contiguous are read at once (reads_words); `rows`: of a tile, a multiple of
  // 32; `row_coordinates`: room for theirs, the fetching warps' common; `ks`: for a chunk's, this warp's own.
  __device__ Fetcher(const OperandView& operand, const LaneCode& lane_code, bool words, int rows,
                     Coordinates* row_coordinates, Coordinates* ks, int fetcher)
      : operand_(operand),
        lane_code_(lane_code),
        words_(words),
        strided_(operand.kind == OperandView::Kind::strided),
        by_rows_(along_rows(operand)),
        extent_(extent(operand)),
        rows_(rows),
        row_coordinates_(row_coordinates),
        ks_(ks),
        fetcher_(fetcher),
        lane_(threadIdx.x % 32),
        exponents_(static_cast<uint32_t>(operand.codes.format.e_max()) * 0x00010001),
        sign_shift_(operand.codes.format.bits - 1) {}

  // Takes up a tile, in codes from `offset` on, whose rows' coordinates stand there (place_rows).
  __device__ void start_tile(int64_t offset) { codes_ = operand_.codes.at(offset).data; }

  // tile[k, row] = lane of (row, k0 + k), zero from k = end and from the last row on.
  __device__ void fill(int64_t k0, int64_t end, uint16_t* tile) const {
    const Coordinates mine = k_coordinates(operand_, k0 + (words_ && !by_rows_ ? lane_ & ~3 : lane_), end);
    if (by_rows_) {
      __syncwarp();
      ks_[lane_] = mine;
      __syncwarp();
    }
    if (words_ && by_rows_)
      fill_along_rows<1, 4>(tile, [&](const Coordinates(&row)[1], const Coordinates& k) {
        const uint32_t codes = load_words(row[0] + k);
        return make_uint2(__byte_perm(codes, 0, 0x4140), __byte_perm(codes, 0, 0x4342));
      });
    else if (words_ && strided_)
      fill_words_along_k(mine, tile, [&](const Coordinates& at) {
        return load_if(at.y == 0, reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(codes_) + at.offset));
      });
    else if (words_)
      fill_words_along_k(mine, tile, [&](const Coordinates& at) { return load_words(at); });
    else if (operand_.codes.wide())
      fill_from(static_cast<const uint16_t*>(codes_), mine, tile);
    else
      fill_from(static_cast<const uint8_t*>(codes_), mine, tile);
  }

 private:
  // Four codes from `at` on. They lie in one line of the image, whose words are wholly inside or outside; but taps move
  // them against the words.
  __device__ uint32_t load_words(const Coordinates& at) const {
    const int before = at.x & 3, x = at.x - before;
    const bool line = static_cast<unsigned>(at.y) < extent_.y;
    const auto* word = reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(codes_) + (at.offset - before));
    const uint32_t first = load_if(line && static_cast<unsigned>(x) < extent_.x, word);
    const uint32_t second = load_if(line && before != 0 && static_cast<unsigned>(x + 4) < extent_.x, word + 1);
    return __funnelshift_r(first, second, 8 * before);
  }

  // A code at a time.
  template <typename Code>
  __device__ void fill_from(const Code* codes, const Coordinates& mine, uint16_t* tile) const {
    const auto load_if_inside = [&](const Coordinates& row, const Coordinates& k) {
      return load_if(inside(extent_, row, k), codes + (row.offset + k.offset));
    };
    if (by_rows_)
      fill_along_rows<4, 2>(tile, [&](const Coordinates(&row)[4], const Coordinates& k) {
        return four([&](int u) { return load_if_inside(row[u], k); });
      });
    else if (strided_)
      fill_along_k(tile, [&](int row) {
        const Code* at = codes + (coordinates(row, 0).offset + mine.offset);
        return four([&](int u) { return load_if(mine.y + coordinates(row, u).y == 0, at + u * operand_.row_stride); });
      });
    else
      fill_along_k(tile,
                   [&](int row) { return four([&](int u) { return load_if_inside(coordinates(row, u), mine); }); });
  }

  // The codes of four rows, two to a word.
  template <typename Load>
  __device__ static uint2 four(Load load) {
    uint32_t code[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) code[u] = load(u);
    return make_uint2(code[0] | code[1] << 16, code[2] | code[3] << 16);
  }

  // A thread goes along k; in pairs, so that eight loads are under way.
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

  // Words along k: a thread takes four of four rows and exchanges them, a warp 16 rows.
  template <typename Load>
  __device__ void fill_words_along_k(const Coordinates& mine, uint16_t* tile, Load load) const {
    constexpr int step = kFetchers * 16;
    const int pitch = pitch_of(rows_);
    uint16_t* to = tile + (lane_ & ~3) * pitch;
    const auto take = [&]<int kUnits>(int row) {
      uint32_t words[kUnits][4];
#pragma unroll
      for (int n = 0; n < kUnits; ++n)
#pragma unroll
        for (int u = 0; u < 4; ++u) words[n][u] = load(coordinates(row + n * step, u) + mine);
#pragma unroll
      for (int n = 0; n < kUnits; ++n)
#pragma unroll
        for (int k = 0; k < 4; ++k) {  // lanes() takes no notice of bits between codes
          const uint32_t pick = 0x4400 + 0x1111 * k;
          const uint2 codes =
              make_uint2(__byte_perm(words[n][0], words[n][1], pick), __byte_perm(words[n][2], words[n][3], pick));
          store(codes, to + k * pitch + row + n * step);
        }
    };
    int row = fetcher_ * 16 + lane_ % 4 * 4;
    for (; row + step < rows_; row += 2 * step) take.template operator()<2>(row);
    if (row < rows_) take.template operator()<1>(row);
  }

  // Where contiguous rows are, a warp takes its share of the ks. kCoordinates: of a load; kBatch: loads under way.
  template <int kCoordinates, int kBatch, typename Load>
  __device__ void fill_along_rows(uint16_t* tile, Load load) const {
    constexpr int share = kChunk / kFetchers;
    const int pitch = pitch_of(rows_), threads = min(32, rows_ / 4),
              ks = 32 / threads;  // of one k; that the warp takes at once
    if (lane_ >= threads * ks) return;
    for (int row = lane_ % threads * 4; row < rows_; row += 32 * 4) {
      Coordinates fixed[kCoordinates];
#pragma unroll
      for (int u = 0; u < kCoordinates; ++u) fixed[u] = coordinates(row, u);
      for (int j = lane_ / threads; j < share; j += kBatch * ks) {
        uint2 codes[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) codes[b] = load(fixed, ks_[fetcher_ * share + min(j + b * ks, share - 1)]);
#pragma unroll
        for (int b = 0; b < kBatch; ++b)
          if (j + b * ks < share) store(codes[b], tile + (fetcher_ * share + j + b * ks) * pitch + row);
      }
    }
  }

  // Of the u-th of four rows from `row` on.
  __device__ const Coordinates& coordinates(unsigned row, unsigned u) const {
    return row_coordinates_[u * (rows_ / 4) + row / 4];
  }

  __device__ void store(const uint2& codes, uint16_t* to) const {
    *reinterpret_cast<uint2*>(to) = make_uint2(lanes(codes.x), lanes(codes.y));
  }

  // Of two codes, a half of the word each.
  __device__ uint32_t lanes(uint32_t codes) const {
    const uint32_t exponents = (codes & exponents_) << operand_.codes.log2_step;
    const uint32_t present = __vminu2(exponents, 0x00010001);
    const uint32_t negative = codes >> sign_shift_ & present;
    return exponents + present * lane_code_.zero_shift + negative * lane_code_.sign_step;
  }

  const OperandView& operand_;
  const LaneCode& lane_code_;
  bool words_, strided_, by_rows_;
  Extent extent_;
  unsigned rows_;
  Coordinates* row_coordinates_;
  Coordinates* ks_;
  int fetcher_, lane_;
  uint32_t exponents_;  // a code's exponent bits, in both halves
  int sign_shift_;
  const void* codes_;  // the tile's
};

}  // namespace lns::cuda
