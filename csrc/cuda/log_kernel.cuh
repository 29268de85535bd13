// The kernel under every GEMM and convolution pass on datapaths that add logarithms.
//
// A block computes tiles of outputs; each of its threads holds R rows x C columns of them in registers, as words
// (core/log_datapath.h). Along K in chunks of lanes all threads bring the operands' words into shared memory, then
// multiply; two blocks share a multiprocessor, so that one fetches while the other multiplies. What a sum adds to its
// larger number stands in shared memory, if it fits, and several times if it is small, so that look-ups of different
// entries meet fewer bank conflicts.
//
// Few outputs leave each thread one, and time is K times the latency of a sum, which needs the one before: half of a
// block's warps then fetch the next chunk, one on each scheduler beside one that adds.
#pragma once

#include <type_traits>

#include "core/log_datapath.h"
#include "cuda/coordinates.cuh"
#include "cuda/counting.h"
#include "gemm/product.h"

namespace lns::cuda {

constexpr int kLogThreads = 256;
constexpr int kLogLevels = 13;  // of a tree of up to 4096 lanes

// Where the steps are read: in shared memory as 32 or 16 bits, or in global memory.
enum class LogSteps { words, halves, global };

// Everything a launch knows.
struct LogTiledProduct {
  Side rows, columns;
  Batch batch;
  void* output;
  int64_t k;
  bool accumulators;
  LogRange range;
  LogOperands operands;
  LogValues values;
  int vector_size;  // of a tree
  const int32_t *steps, *mantissas;
  int last;         // index of the last step
  int table_shift;  // words: they stand 2^table_shift times in shared memory
  int64_t tiles_r, tiles_c, tiles;
  Counters* counters;  // where they are asked for
};

// The tile of a block whose threads hold R x C outputs.
template <int R, int C>
struct LogTile {
  static constexpr bool ahead = R * C == 1;  // some threads fetch while the others add
  static constexpr int row_groups = 8, column_groups = ahead ? 16 : 32;
  static constexpr int adders = row_groups * column_groups, fetchers = ahead ? kLogThreads - adders : kLogThreads;
  static constexpr int rows = row_groups * R, columns = column_groups * C;
  static constexpr int chunk = ahead ? 64 : 32;  // lanes in a buffer
  static constexpr int buffers = ahead ? 2 : 1;
  static constexpr int blocks = ahead ? 3 : 2;  // on a multiprocessor

  // Words of a side in shared memory: [k][row], or [row][k] where a thread reads several k of one row; a line is four
  // longer for few bank conflicts.
  LNS_HD static constexpr int at(int side, int row, int k) {
    return ahead ? row * (chunk + 4) + k : k * (side + 4) + row;
  }
  static constexpr int row_words = ahead ? at(rows, rows, 0) : at(rows, 0, chunk);
  static constexpr int column_words = ahead ? at(columns, columns, 0) : at(columns, 0, chunk);
  static constexpr int words = row_words + column_words;  // of a buffer
  static constexpr int bytes = buffers * words * static_cast<int>(sizeof(int32_t)) +
                               (rows + columns + buffers * 2 * chunk) * static_cast<int>(sizeof(Coordinates));
};

// A side's words of a chunk, by all who fetch.
template <typename Tile, int Rows, typename Word>
__device__ void fetch_words(const OperandView& o, const CodeView& codes, const Coordinates* rows, const Coordinates* ks,
                            int32_t* tile, int fetcher, Word word) {
  const bool by_rows = o.rows_are_contiguous();
  const Extent e = extent(o);
  // Threads go along what is contiguous; each one's elements share their row or their k.
  constexpr int all = Tile::fetchers, each = Rows * Tile::chunk / all, together = each < 8 ? each : 8;
  static_assert(all % Rows == 0 && all % Tile::chunk == 0 && each % together == 0);
  const int row0 = by_rows ? fetcher % Rows : fetcher / Tile::chunk, row_step = by_rows ? 0 : all / Tile::chunk;
  const int k0 = by_rows ? fetcher / Rows : fetcher % Tile::chunk, k_step = by_rows ? all / Rows : 0;
#pragma unroll 1
  for (int first = 0; first < each; first += together) {
    const int row = row0 + first * row_step, k = k0 + first * k_step;
    int32_t* to = tile + Tile::at(Rows, row, k);
    int code[together];  // all loads before the first store, which might change what the next one reads
#pragma unroll
    for (int j = 0; j < together; ++j) code[j] = load_code(codes, e, rows[row + j * row_step], ks[k + j * k_step]);
#pragma unroll
    for (int j = 0; j < together; ++j)
      to[j * Tile::at(Rows, row_step, k_step)] = word(codes.format.negative(code[j]), codes.exponent(code[j]));
  }
}

template <int N>
__device__ inline void load_words(int32_t (&words)[N], const int32_t* from) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const int4 four = *reinterpret_cast<const int4*>(from + i);
      words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) words[i] = from[i];
  }
}

// plain: what lies below the range is zero, and no product of non-zero operands leaves the range. Else any datapath's
// results, or those and counts.
enum class LogUse { plain, results, counts };

// *at, in shared memory: what the compiler makes of that extends the sign by an instruction of its own.
__device__ inline int32_t load_half(const int16_t* at) {
  int32_t half;
  asm("ld.shared.s16 %0, [%1];" : "=r"(half) : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at))));
  return half;
}

// What a thread adds.
template <LogSteps Where, LogUse Use>
struct LogAdder {
  const LogTiledProduct& t;
  const void* steps;  // this thread's copy
  int32_t lowest;     // word that is not taken for zero
  unsigned long long flushed = 0, saturated = 0, cancelled = 0;

  __device__ int32_t step(int32_t difference) const {
    const int i = min(difference, t.last);
    if constexpr (Where == LogSteps::halves)
      return 4 * load_half(static_cast<const int16_t*>(steps) + i);
    else
      return static_cast<const int32_t*>(steps)[Where == LogSteps::words ? i << t.table_shift : i];
  }
  __device__ int32_t keep(int32_t w) {
    if (Use == LogUse::counts) flushed += t.range.flushes(w), saturated += t.range.saturates(w);
    const int32_t sign = w & 1, kept = min(max(w & ~1, t.range.low), t.range.high - 1) + sign;
    return w < lowest ? kLogZero : kept;
  }
  __device__ int32_t add(int32_t x, int32_t y) {
    const int32_t larger = max(x, y), difference = larger - min(x, y);
    if (Use == LogUse::counts) cancelled += difference == 1;
    return keep(larger + step(difference));
  }
  // acc + the product of a row's word and a column's, which comes as its sign and the rest; but for the highest word,
  // which `top` looks after.
  __device__ int32_t add_product(int32_t acc, int32_t row, int32_t column, int32_t sign) {
    if constexpr (Use == LogUse::plain) {
      const int32_t signed_row = row ^ sign;
      const int32_t larger = __viaddmax_s32(signed_row, column, acc);
      const int32_t w = larger + step(larger - __viaddmin_s32(signed_row, column, acc));
      return w < t.range.low ? kLogZero : w;
    } else {
      return add(acc, product(row, column, sign));
    }
  }
  __device__ int32_t product(int32_t row, int32_t column, int32_t sign) { return keep((row ^ sign) + column); }

  // plain: acc + a product after the other. First as if no sum left the range, which is rare and found out beside the
  // chain of sums: no step rises by 2^22, so zeros stay below kLogPresent, and no number falls so far in one.
  template <int N>
  __device__ int32_t add_products(int32_t acc, const int32_t (&products)[N]) {
    static_assert(N <= 8);
    int32_t sum = acc, highest = INT32_MIN;
    uint32_t lowest = UINT32_MAX;  // above kLogPresent; zeros are far above any number
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum = max(sum, products[i]) + step(static_cast<int32_t>(__sad(sum, products[i], 0)));
      highest = max(highest, sum);
      lowest = __viaddmin_u32(static_cast<uint32_t>(sum), static_cast<uint32_t>(-kLogPresent), lowest);
    }
    if (highest <= t.range.high && lowest >= static_cast<uint32_t>(t.range.low - kLogPresent))
      return sum < t.range.low ? kLogZero : sum;
#pragma unroll
    for (int i = 0; i < N; ++i) acc = add(acc, products[i]);
    return acc;
  }
};

// One output's sum over a chunk; the products of the next lanes are on their way while some are added.
template <typename Tile, typename Adder>
__device__ int32_t add_chunk(Adder& adder, int32_t acc, const int32_t* row_words, const int32_t* column_words) {
  constexpr int n = 8;
  const auto load = [&](int32_t(&products)[n], int k) {
    int32_t a[n], b[n];
    load_words(a, row_words + k);
    load_words(b, column_words + k);
#pragma unroll
    for (int i = 0; i < n; ++i) products[i] = log_product(a[i], b[i]);
  };
  int32_t products[n], next[n];
  load(products, 0);
#pragma unroll 1
  for (int k = 0; k < Tile::chunk; k += n) {
    load(next, (k + n) % Tile::chunk);
    acc = adder.add_products(acc, products);
#pragma unroll
    for (int i = 0; i < n; ++i) products[i] = next[i];
  }
  return acc;
}

// A tree's sums so far, one for each level.
template <int R, int C>
struct LogTree {
  int32_t level[kLogLevels][R][C] = {};  // in local memory
  int lanes = 0;                         // of the vector

  template <typename Adder>
  __device__ void add(Adder& adder, int32_t (&sum)[R][C]) {
    int l = 0;
    for (; lanes >> l & 1; ++l) add_level(adder, l, sum);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < C; ++c) level[l][r][c] = sum[r][c];
    ++lanes;
  }
  // Ends a vector. What is left over meets zeros, which change nothing, until it meets the next larger part.
  template <typename Adder>
  __device__ void close(Adder& adder, int32_t (&acc)[R][C]) {
    int32_t sum[R][C];
    int l = __ffs(lanes) - 1;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < C; ++c) sum[r][c] = level[l][r][c];
    for (++l; lanes >> l; ++l)
      if (lanes >> l & 1) add_level(adder, l, sum);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < C; ++c) acc[r][c] = adder.add(acc[r][c], sum[r][c]);
    lanes = 0;
  }

 private:
  template <typename Adder>
  __device__ void add_level(Adder& adder, int l, int32_t (&sum)[R][C]) {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < C; ++c) sum[r][c] = adder.add(level[l][r][c], sum[r][c]);
  }
};
struct NoTree {};

template <LogSteps Where, LogUse Use, bool Tree, int R, int C>
__global__ void __launch_bounds__(kLogThreads, LogTile<R, C>::blocks)
    log_multiply(const __grid_constant__ LogTiledProduct t) {
  using Tile = LogTile<R, C>;
  constexpr int kRows = Tile::rows, kColumns = Tile::columns, kChunk = Tile::chunk;
  extern __shared__ __align__(16) char shared[];
  int32_t* words = reinterpret_cast<int32_t*>(shared);  // of each buffer: the rows', then the columns'
  Coordinates* row_places = reinterpret_cast<Coordinates*>(words + Tile::buffers * Tile::words);
  Coordinates* column_places = row_places + kRows;
  Coordinates* ks = column_places + kColumns;  // of each buffer: of the rows, then of the columns
  void* table = ks + Tile::buffers * 2 * kChunk;

  if constexpr (Where == LogSteps::words)
    for (int i = threadIdx.x; i < (t.last + 1) << t.table_shift; i += kLogThreads)
      static_cast<int32_t*>(table)[i] = t.steps[i >> t.table_shift];
  if constexpr (Where == LogSteps::halves)  // the sum of a number and its negative: below every E of 16 bits
    for (int i = threadIdx.x; i <= t.last; i += kLogThreads)
      static_cast<int16_t*>(table)[i] = static_cast<int16_t>(max(t.steps[i] / 4, INT16_MIN));
  const int lane = threadIdx.x % 32, thread = threadIdx.x, fetcher = thread - (kLogThreads - Tile::fetchers);
  const bool adds = thread < Tile::adders;
  const int row0 = thread / Tile::column_groups * R, column0 = thread % Tile::column_groups * C;
  const void* steps = Where == LogSteps::global ? static_cast<const void*>(t.steps)
                      : Where == LogSteps::words
                          ? static_cast<const void*>(static_cast<int32_t*>(table) + (lane & ((1 << t.table_shift) - 1)))
                          : table;
  LogAdder<Where, Use> adder{.t = t, .steps = steps, .lowest = t.range.flush ? t.range.low : kLogPresent};

  for (int64_t i = blockIdx.x; i < t.tiles; i += gridDim.x) {
    const int64_t column = i % t.tiles_c * kColumns, row = i / t.tiles_c % t.tiles_r * kRows;
    const Offsets offsets = t.batch.at(i / t.tiles_c / t.tiles_r);
    const CodeView left = t.rows.operand.codes.at(offsets.left), right = t.columns.operand.codes.at(offsets.right);
    __syncthreads();  // all are done with the last tile
    for (int at = threadIdx.x; at < kRows + kColumns; at += kLogThreads)
      row_places[at] = at < kRows ? row_coordinates(t.rows.operand, row + at, t.rows.rows)
                                  : row_coordinates(t.columns.operand, column + at - kRows, t.columns.rows);
    int32_t acc[R][C];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < C; ++c) acc[r][c] = kLogZero;
    [[maybe_unused]] std::conditional_t<Tree, LogTree<R, C>, NoTree> tree;
    // What becomes of the chunk from k0 on, in a buffer: its places along K, its words, its products.
    const auto place = [&](int64_t k0, int buffer) {
      if (fetcher < 2 * kChunk)
        ks[buffer * 2 * kChunk + fetcher] =
            k_coordinates(fetcher < kChunk ? t.rows.operand : t.columns.operand, k0 + fetcher % kChunk, t.k);
    };
    const auto fetch = [&](int buffer) {
      const Coordinates* at = ks + buffer * 2 * kChunk;
      int32_t* to = words + buffer * Tile::words;
      fetch_words<Tile, kRows>(t.rows.operand, left, row_places, at, to, fetcher,
                               [&](bool negative, int e) { return t.operands.left(negative, e); });
      fetch_words<Tile, kColumns>(t.columns.operand, right, column_places, at + kChunk, to + Tile::row_words, fetcher,
                                  [&](bool negative, int e) { return t.operands.right(negative, e); });
    };
    const auto multiply = [&](int64_t k0, int buffer) {
      const int32_t* row_words = words + buffer * Tile::words + Tile::at(kRows, row0, 0);
      const int32_t* column_words = words + buffer * Tile::words + Tile::row_words + Tile::at(kColumns, column0, 0);
      if constexpr (Tile::ahead && Use == LogUse::plain) {  // behind the end of K stand zeros
        acc[0][0] = add_chunk<Tile>(adder, acc[0][0], row_words, column_words);
      } else {
        const int depth = static_cast<int>(min(static_cast<int64_t>(kChunk), t.k - k0));
#pragma unroll 1
        for (int d = 0; d < depth; ++d) {
          int32_t a[R], b[C], sign[C];
          load_words(a, row_words + Tile::at(kRows, 0, d));
          load_words(b, column_words + Tile::at(kColumns, 0, d));
#pragma unroll
          for (int c = 0; c < C; ++c) sign[c] = b[c] & 1, b[c] &= ~1;
          if constexpr (Tree) {
            int32_t sum[R][C];
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
              for (int c = 0; c < C; ++c) sum[r][c] = adder.product(a[r], b[c], sign[c]);
            tree.add(adder, sum);
            if (tree.lanes == t.vector_size) tree.close(adder, acc);
          } else {
#pragma unroll
            for (int r = 0; r < R; ++r) {
              int32_t highest = INT32_MIN;
#pragma unroll
              for (int c = 0; c < C; ++c) {
                acc[r][c] = adder.add_product(acc[r][c], a[r], b[c], sign[c]);
                highest = max(highest, acc[r][c]);
              }
              if (Use == LogUse::plain && highest > t.range.high)
#pragma unroll
                for (int c = 0; c < C; ++c) acc[r][c] = t.range.keep(acc[r][c]);
            }
          }
        }
      }
    };
    if constexpr (Tile::ahead) {
      // Between two barriers chunk k0 is added from its buffer, whose places are free for the chunk after the next; the
      // next one's words go from its places to the other buffer, which was added before.
      int buffer = 0;
      for (int64_t k0 = -2 * kChunk; k0 < t.k; k0 += kChunk, buffer ^= 1) {
        __syncthreads();
        if (adds) {
          if (k0 >= 0) multiply(k0, buffer);
        } else {
          if (k0 >= -kChunk && k0 + kChunk < t.k) fetch(buffer ^ 1);
          if (k0 + 2 * kChunk < t.k) place(k0 + 2 * kChunk, buffer);
        }
      }
    } else {
      for (int64_t k0 = 0; k0 < t.k; k0 += kChunk) {
        place(k0, 0);
        __syncthreads();  // and with the last chunk
        fetch(0);
        __syncthreads();
        multiply(k0, 0);
        __syncthreads();
      }
    }
    if (!adds) continue;
    if constexpr (Tree)
      if (tree.lanes > 0) tree.close(adder, acc);

#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int64_t at_row = row + row0 + r;
      if (at_row >= t.rows.rows) break;
      const unsigned i_row = static_cast<unsigned>(at_row);
      const int64_t to_row = offsets.output + axis_offset(t.rows.output, i_row);
      const double row_factor =
          scale_factor(float_bits(t.rows.scale[offsets.left_scale + axis_offset(t.rows.scale_axis, i_row)]));
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int64_t at_column = column + column0 + c;
        if (at_column >= t.columns.rows) break;
        const unsigned i_column = static_cast<unsigned>(at_column);
        const int64_t to = to_row + axis_offset(t.columns.output, i_column);
        const int32_t n = t.range.accumulator(acc[r][c]);
        if (t.accumulators) {
          static_cast<int32_t*>(t.output)[to] = n;
          continue;
        }
        const float* scale = t.columns.scale + offsets.right_scale + axis_offset(t.columns.scale_axis, i_column);
        static_cast<float*>(t.output)[to] =
            static_cast<float>(t.values(n, t.mantissas) * (row_factor * scale_factor(float_bits(*scale))));
      }
    }
  }
  if constexpr (Use == LogUse::counts) {
    if (adder.flushed) atomicAdd(as_unsigned(&t.counters->vanished), adder.flushed);
    if (adder.saturated) atomicAdd(as_unsigned(&t.counters->saturations), adder.saturated);
    if (adder.cancelled) atomicAdd(as_unsigned(&t.counters->cancelled), adder.cancelled);
  }
}

}  // namespace lns::cuda
