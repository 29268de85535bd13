// The kernel under every GEMM and convolution pass on a GPU.
//
// A block computes tiles of outputs. The threads of eight of its warps multiply: tile_r x tile_c of them stand over a
// tile, each holds R rows x 4 neighbouring columns. Where outputs are few and K is long, further threads do the same
// for the next segments of K, side by side in one tile: `together`. Four warps fetch: along K in chunks of 32 lanes,
// straight from the operands, encoded as 16-bit lanes (product_table.h) into one of two buffers in shared memory while
// the other is multiplied. The product table stands in shared memory once per lane of a warp (as often as fits), so
// that 32 look-ups of different rows meet no bank conflict: a product is one multiply-add for the address, one shared
// load and half an addition, and the loads are the limit (32 a clock and multiprocessor).
#pragma once

#include "core/datapath.h"
#include "cuda/barriers.cuh"
#include "cuda/coordinates.cuh"
#include "cuda/fetcher.cuh"
#include "cuda/overlap.cuh"
#include "cuda/product_table.h"
#include "cuda/sums.cuh"
#include "gemm/product.h"

namespace lns::cuda {

constexpr int kMultipliers = 8;  // warps that multiply
constexpr int kGates = 4;        // of the two buffers

// Everything a launch knows. Sides are called by their place in the tile: the product's left and right, or exchanged.
struct TiledProduct {
  Side rows, columns;
  Batch batch;  // its left is rows
  void* output;
  int64_t k;
  bool accumulators;
  Datapath datapath;
  // Of the product table.
  LaneCode lane_code;
  int table_rows, table_shift;  // the table stands 2^table_shift times in shared memory
  int short_lanes;              // wide
  const int32_t* table;
  const int64_t* products;  // direct
  // Block scales; 0 vectors share shifts where there are none.
  int block_vectors;
  int64_t blocks;
  GatheredShifts row_shifts, column_shifts;
  bool row_words, column_words;  // see Fetcher
  // Tiles, in threads, and for how many segments; in rows and columns; and how many there are.
  int tile_r, tile_c, together;
  Divisor tile_rows, tile_columns, tiles_r, tiles_c;
  Divisor groups;  // of segments together
  int64_t tiles;
  // Segments of K that are accumulated apart, in vectors; 1: none are. Of each, cells: outputs filled up to threads'.
  int segments;
  int64_t segment_vectors;
  int32_t* segment_sums;          // out: (instance, segment, cell), or of SegmentSums (instance, segment, 3, cell)
  int32_t* segment_bounds;        // out: (instance, segment, thread, 2), see FusedSums
  int bounded_rows;               // of a thread
  const int32_t* starts;          // in: (instance, segment, cell) accumulators at the segments' starts; only counts
  int32_t* gates;                 // of every tile of SegmentSums how many segments, the last, may be computed
  int32_t* doubts;                // of every tile of SegmentSums how many times an output may saturate in a segment
  int32_t* chosen;                // behind these: how many tiles of SegmentSums are computed, and which
  int32_t* doubtful;              // outputs that may saturate; before `chosen` how many
  const int32_t* sums_before;     // those before, as of segment_sums
  unsigned long long* overflows;  // null: not counted

  __host__ __device__ int64_t across() const { return (columns.rows + kColumns - 1) / kColumns; }  // threads
  __host__ __device__ int64_t threads() const { return (rows.rows + bounded_rows - 1) / bounded_rows * across(); }
  __host__ __device__ int64_t cells() const { return threads() * bounded_rows * kColumns; }
  __host__ __device__ int64_t segment_lanes() const { return segment_vectors * datapath.vector_size; }
};

// Rows (or columns) that are fetched for a tile.
__host__ __device__ inline int fetched(int each, int threads, int together) {
  return (each * threads * together + 31) & ~31;
}

// Bytes of shared memory behind the table, for so many fetched rows and columns.
__host__ __device__ inline int tile_bytes(int rows, int columns) {
  const int lanes = 2 * kChunk * (pitch_of(rows) + pitch_of(columns)),
            coordinates = 2 * (rows + columns + kFetchers * kChunk);
  return kGates * static_cast<int>(sizeof(uint64_t)) + lanes * static_cast<int>(sizeof(uint16_t)) +
         coordinates * static_cast<int>(sizeof(Coordinates));
}

// ---- Multiplying.

__device__ inline int multiply_add(int a, int b, int c) {  // on the multiplier's pipe, so that the adder's is free
  int d;
  asm("mad.lo.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// What a thread multiplies at one k: 16-bit lanes of its rows and columns, two to a register.
template <int R>
struct Lanes {
  uint32_t rows[R / 2], columns[kColumns / 2];

  __device__ Lanes(const uint16_t* row_lanes, const uint16_t* column_lanes) {
#pragma unroll
    for (int i = 0; i < R / 2; i += 2)
      *reinterpret_cast<uint2*>(rows + i) = reinterpret_cast<const uint2*>(row_lanes)[i / 2];
    *reinterpret_cast<uint2*>(columns) = *reinterpret_cast<const uint2*>(column_lanes);
  }
  __device__ static int at(const uint32_t* packed, int i) {
    return static_cast<int>(i % 2 ? packed[i / 2] >> 16 : packed[i / 2] & 0xffff);
  }
};

// Of shared memory, at an address that is one multiply-add: of a pointer's, compilers add the base to each.
__device__ inline int32_t look_up(int address) {
  int32_t product;
  asm("ld.shared.s32 %0, [%1];" : "=r"(product) : "r"(address));
  return product;
}

// `table`: the thread's copy.
template <typename ThreadSums>
__device__ inline void add_lanes(ThreadSums& sums, const Lanes<ThreadSums::kRows>& lanes, const TiledProduct& tiled,
                                 int table, int row_bytes) {
  int base[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int column = lanes.at(lanes.columns, j);
    base[j] = ThreadSums::kSums == Sums::direct ? column : column * row_bytes + table;
  }
#pragma unroll
  for (int i = 0; i < ThreadSums::kRows; ++i) {
    const int row = lanes.at(lanes.rows, i);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if constexpr (ThreadSums::kSums == Sums::direct) {
        const int a = row & 0x7fff, b = base[j] & 0x7fff;
        const int64_t t = a != 0 && b != 0 ? tiled.products[a + b] : 0;
        sums.add(i, j, (row ^ base[j]) >> 15 ? -t : t);
      } else {
        sums.add(i, j, look_up(multiply_add(row, row_bytes, base[j])));
      }
    }
  }
}

// Where a row of a side goes, and what its accumulators are multiplied by.
struct Placing {
  int64_t at;
  double factor;
};

// The block's shared memory.
template <typename ThreadSums>
struct Memory {
  int tile_rows, tile_columns;  // of one segment
  int rows, columns;            // that are fetched
  int pitch_r, pitch_c, row_bytes;
  char* table;
  Coordinates *side_coordinates, *k_coordinates;  // rows, then columns; a chunk per fetcher and side
  Placing* placing;                               // rows, then columns
  uint64_t* gates;                                // is a buffer filled, for each; has it been multiplied
  uint16_t *row_tile, *column_tile;

  __device__ Memory(const TiledProduct& tiled, char* shared)
      : tile_rows(static_cast<int>(tiled.tile_rows)),
        tile_columns(static_cast<int>(tiled.tile_columns)),
        rows(fetched(ThreadSums::kRows, tiled.tile_r, tiled.together)),
        columns(fetched(kColumns, tiled.tile_c, tiled.together)),
        pitch_r(pitch_of(rows)),
        pitch_c(pitch_of(columns)),
        row_bytes(4 << tiled.table_shift),
        table(shared) {
    const int table_bytes = tiled.table_rows * row_bytes;
    side_coordinates = reinterpret_cast<Coordinates*>(shared + ((table_bytes + 15) & ~15));
    k_coordinates = side_coordinates + rows + columns;
    placing = reinterpret_cast<Placing*>(k_coordinates + 2 * kFetchers * kChunk);
    gates = reinterpret_cast<uint64_t*>(placing + rows + columns);
    row_tile = reinterpret_cast<uint16_t*>(gates + kGates);
    column_tile = row_tile + 2 * kChunk * pitch_r;
  }
  __device__ Gate filled(int buffer) const { return Gate(gates + buffer); }
  __device__ Gate multiplied(int buffer) const { return Gate(gates + 2 + buffer); }
  __device__ uint16_t* row_lanes(int buffer) const { return row_tile + buffer * kChunk * pitch_r; }
  __device__ uint16_t* column_lanes(int buffer) const { return column_tile + buffer * kChunk * pitch_c; }
};

// The tiles that blocks share: all, or those that are chosen.
template <typename ThreadSums>
__device__ inline int64_t tile_count(const TiledProduct& tiled) {
  return ThreadSums::kUse == Use::segment ? *tiled.chosen : tiled.tiles;
}
template <typename ThreadSums>
__device__ inline unsigned tile_index(const TiledProduct& tiled, int64_t i) {
  return static_cast<unsigned>(ThreadSums::kUse == Use::segment ? tiled.chosen[1 + i] : i);
}

// One tile of one product, of one segment or of several together. The latter lie alike (splits_at): what is fetched for
// one of them is found from its start.
struct Tile {
  int64_t row, column, begin, end;
  int64_t instance;
  int segment;
  int64_t gate;  // of those that are the same but for their segments

  __device__ Tile(const TiledProduct& tiled, unsigned i) {
    const unsigned line = tiled.tiles_c.quotient(i), group = tiled.tiles_r.quotient(line);
    const unsigned at_row = tiled.tiles_r.rest(line), at_column = tiled.tiles_c.rest(i);
    row = at_row * tiled.tile_rows, column = at_column * tiled.tile_columns;
    instance = tiled.groups.quotient(group);
    segment = static_cast<int>(tiled.groups.rest(group)) * tiled.together;
    gate = (instance * tiled.tiles_r + at_row) * tiled.tiles_c + at_column;
    begin = tiled.together > 1 ? 0 : segment * tiled.segment_lanes();
    end = min(tiled.k, begin + tiled.segment_lanes());
  }
};

// Where the i-th row that is fetched of a side lies: `rows` from `first` on, and again for every segment.
__device__ inline Coordinates place(const TiledProduct& tiled, const Tile& tile, const Side& side, int64_t first,
                                    const Divisor& rows, int i) {
  const int beside = static_cast<int>(rows.quotient(i)), segment = tile.segment + beside;
  const int64_t row = first + rows.rest(i);
  if (beside >= tiled.together || segment >= tiled.segments || row >= side.rows) return kNowhere;
  const Coordinates at = row_coordinates(side.operand, row, side.rows);
  return tiled.together > 1 ? at + k_coordinates(side.operand, segment * tiled.segment_lanes(), tiled.k) : at;
}

// Puts down the coordinates of all rows that are fetched for a tile; of so many threads this is the `thread`-th.
template <typename ThreadSums>
__device__ inline void place_sides(const TiledProduct& tiled, const Memory<ThreadSums>& m, const Tile& tile,
                                   unsigned thread, unsigned threads) {
  place_rows(tiled.rows.operand, tiled.row_words, m.rows, m.side_coordinates, thread, threads,
             [&](int at) { return place(tiled, tile, tiled.rows, tile.row, tiled.tile_rows, at); });
  place_rows(tiled.columns.operand, tiled.column_words, m.columns, m.side_coordinates + m.rows, thread, threads,
             [&](int at) { return place(tiled, tile, tiled.columns, tile.column, tiled.tile_columns, at); });
}

// What the fetching warps do: stay one chunk ahead. The first tile's coordinates are there.
template <typename ThreadSums>
__device__ void fetch(const TiledProduct& tiled, const Memory<ThreadSums>& m, int fetcher) {
  const int thread = fetcher * 32 + threadIdx.x % 32;
  Coordinates* ks = m.k_coordinates + 2 * fetcher * kChunk;
  Fetcher row_fetcher(tiled.rows.operand, tiled.lane_code, tiled.row_words, m.rows, m.side_coordinates, ks, fetcher);
  // From the other end: warps that have less to do for rows have more for columns.
  Fetcher column_fetcher(tiled.columns.operand, tiled.lane_code, tiled.column_words, m.columns,
                         m.side_coordinates + m.rows, ks + kChunk, kFetchers - 1 - fetcher);
  uint32_t chunk = 0;  // of the block
  for (int64_t i = blockIdx.x; i < tile_count<ThreadSums>(tiled); i += gridDim.x) {
    const Tile tile(tiled, tile_index<ThreadSums>(tiled, i));
    const Offsets offsets = tiled.batch.at(tile.instance);
    if (i != blockIdx.x) {
      synchronize(1, kFetchers * 32);  // all are done with the last tile's
      place_sides(tiled, m, tile, thread, kFetchers * 32);
      synchronize(1, kFetchers * 32);
    }
    row_fetcher.start_tile(offsets.left);
    column_fetcher.start_tile(offsets.right);
    for (int64_t k0 = tile.begin; k0 < tile.end; k0 += kChunk, ++chunk) {
      const int buffer = chunk & 1;
      m.multiplied(buffer).wait((chunk >> 1 & 1) ^ 1);  // passes at once the first time
      row_fetcher.fill(k0, tile.end, m.row_lanes(buffer));
      column_fetcher.fill(k0, tile.end, m.column_lanes(buffer));
      m.filled(buffer).arrive();
    }
  }
}

// Writes a tile's results; the multiplying warps' common work. `mine`: has the thread any?
template <typename ThreadSums>
__device__ void write(const TiledProduct& tiled, const Memory<ThreadSums>& m, const Tile& tile, const ThreadSums& sums,
                      bool mine, int row0, int column0) {
  constexpr int threads = kMultipliers * 32;
  const Offsets offsets = tiled.batch.at(tile.instance);
  synchronize(2, threads);  // the last tile's placings are done with
  for (int i = threadIdx.x; i < m.rows + m.columns; i += threads) {
    const bool is_row = i < m.rows;
    const Side& side = is_row ? tiled.rows : tiled.columns;
    const int64_t at = is_row ? tile.row + i : tile.column + i - m.rows;
    if (at >= side.rows) continue;
    const unsigned row = static_cast<unsigned>(at);
    const float* scale = side.scale + (is_row ? offsets.left_scale : offsets.right_scale);
    const double unit = is_row ? unit_factor(tiled.datapath) : 1.0;
    m.placing[i] = {.at = axis_offset(side.output, row),
                    .factor = unit * scale_factor(float_bits(scale[axis_offset(side.scale_axis, row)]))};
  }
  synchronize(2, threads);
  if (!mine) return;
  const Placing* columns = m.placing + m.rows + column0;
  const int64_t left = tiled.columns.rows - tile.column - column0;
  bool whole = left >= kColumns;  // and are they neighbours in the output?
  for (int j = 1; whole && j < kColumns; ++j) whole = columns[j].at == columns[0].at + j;
#pragma unroll
  for (int i = 0; i < ThreadSums::kRows; ++i) {
    if (tile.row + row0 + i >= tiled.rows.rows) break;
    const Placing row = m.placing[row0 + i];
    int32_t out[kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int32_t acc = sums.read(tiled.datapath, i, j);
      out[j] = tiled.accumulators || j >= left ? acc : __float_as_int(read_out(acc, row.factor * columns[j].factor));
    }
    int32_t* to = static_cast<int32_t*>(tiled.output) + offsets.output + row.at;
    if (whole && (reinterpret_cast<uintptr_t>(to + columns[0].at) & 15) == 0) {
      *reinterpret_cast<int4*>(to + columns[0].at) = make_int4(out[0], out[1], out[2], out[3]);
    } else {
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        if (j < left) to[columns[j].at] = out[j];
    }
  }
}

// Calls body(i, cell) for a thread's rows that exist. Cells lie as threads of bounded_rows rows hold them: first their
// first rows, a thread's four columns together, so that stores of neighbouring threads fill whole sectors.
template <int R, typename Body>
__device__ inline void for_rows(const TiledProduct& tiled, const Tile& tile, int row0, int column0, Body body) {
  const unsigned first = static_cast<unsigned>(tile.row) + row0, column = static_cast<unsigned>(tile.column) + column0;
  const unsigned threads = tiled.threads(), across = tiled.across(), held = tiled.bounded_rows;
  const unsigned thread = first / held * across + column / kColumns;
#pragma unroll
  for (int i = 0; i < R; ++i)
    if (first + i < tiled.rows.rows) body(i, ((first % held + i) * threads + thread) * kColumns);
}

__device__ inline void store_four(int32_t* to, const int32_t (&of)[kColumns]) {
  *reinterpret_cast<int4*>(to) = make_int4(of[0], of[1], of[2], of[3]);
}

// The table, 2^table_shift times, by the multiplying warps: each loads 32 rows at once and spreads them.
__device__ inline void fill_table(const TiledProduct& tiled, int32_t* table, int warp, int lane) {
  const int shift = tiled.table_shift;
  for (int row = warp * 32; row < tiled.table_rows; row += kMultipliers * 32) {
    const int32_t mine = row + lane < tiled.table_rows ? tiled.table[row + lane] : 0;
    for (int at = lane; at < 32 << shift; at += 32) {
      const int32_t product = __shfl_sync(~0u, mine, at >> shift);
      if (row + (at >> shift) < tiled.table_rows) table[(row << shift) + at] = product;
    }
  }
}

template <typename ThreadSums>
__global__ void __launch_bounds__((kMultipliers + kFetchers) * 32, 1)
    multiply(const __grid_constant__ TiledProduct tiled) {
  constexpr int R = ThreadSums::kRows;
  if (ThreadSums::kUse == Use::bounded || ThreadSums::kUse == Use::segment) let_next_begin();
  if (ThreadSums::kUse == Use::segment) wait_for_previous();
  extern __shared__ __align__(16) char shared[];
  const Memory<ThreadSums> m(tiled, shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (blockIdx.x >= tile_count<ThreadSums>(tiled)) return;  // mostly none is chosen
  if constexpr (ThreadSums::kUse == Use::bounded)
    for (int32_t* gate = tiled.gates + blockIdx.x * blockDim.x + threadIdx.x; gate <= tiled.chosen;
         gate += gridDim.x * blockDim.x)
      *gate = 0;
  if (threadIdx.x == 0)
    for (int b = 0; b < 2; ++b) m.filled(b).init(kFetchers * 32), m.multiplied(b).init(kMultipliers * 32);
  place_sides(tiled, m, Tile(tiled, tile_index<ThreadSums>(tiled, blockIdx.x)), threadIdx.x, blockDim.x);
  __syncthreads();
  if (warp >= kMultipliers) return fetch(tiled, m, warp - kMultipliers);
  if constexpr (ThreadSums::kSums != Sums::direct) fill_table(tiled, reinterpret_cast<int32_t*>(m.table), warp, lane);
  synchronize(2, kMultipliers * 32);

  // Threads that are too many do what the first segment's do, to no end.
  const int thread = static_cast<int>(threadIdx.x), each = tiled.tile_r * tiled.tile_c;
  const bool employed = thread / each < tiled.together;
  const int beside = employed ? thread / each : 0, row0 = thread % each / tiled.tile_c * R,
            column0 = thread % tiled.tile_c * kColumns;
  const int table = static_cast<int>(__cvta_generic_to_shared(m.table)) + (lane & ((1 << tiled.table_shift) - 1)) * 4;
  const int64_t cells = tiled.cells();
  ThreadSums sums;
  uint32_t chunk = 0;  // of the block
  for (int64_t i = blockIdx.x; i < tile_count<ThreadSums>(tiled); i += gridDim.x) {
    const Tile tile(tiled, tile_index<ThreadSums>(tiled, i));
    const int segment = tile.segment + beside;
    const bool mine = employed && segment < tiled.segments && tile.row + row0 < tiled.rows.rows &&
                      tile.column + column0 < tiled.columns.rows;
    // Warps wholly outside the outputs only keep step: the loads are the limit, and theirs would be wasted.
    const bool active = __any_sync(~0u, mine);
    [[maybe_unused]] const auto part = [&] { return tile.instance * tiled.segments + segment; };
    sums.start(tiled.datapath);
    if constexpr (ThreadSums::kUse == Use::overflows) {
      if (tiled.starts && mine)
        for_rows<R>(tiled, tile, row0, column0, [&](int i, unsigned at) {
#pragma unroll
          for (int j = 0; j < kColumns; ++j) sums.resume(tiled.datapath, i, j, tiled.starts[part() * cells + at + j]);
        });
    }
    int lanes_left = tiled.datapath.vector_size;  // of the current vector
    // The vector's shifts, if there is one, are fetched long before it is closed.
    [[maybe_unused]] unsigned vector = static_cast<unsigned>(segment * tiled.segment_vectors);
    [[maybe_unused]] const auto load_shifts = [&] {
      if constexpr (requires { sums.shifts.columns; })
        if (mine)
          sums.shifts.load(tiled.row_shifts, tiled.column_shifts,
                           tile.instance * tiled.blocks + vector / tiled.block_vectors, tile.row + row0,
                           tile.column + column0);
    };
    if (tile.begin < tile.end) load_shifts();
    for (int64_t k0 = tile.begin; k0 < tile.end; k0 += kChunk, ++chunk) {
      const int buffer = chunk & 1;
      m.filled(buffer).wait(chunk >> 1 & 1);
      if (!active) {
        m.multiplied(buffer).arrive();
        continue;
      }
      const uint16_t* row_lanes = m.row_lanes(buffer) + beside * m.tile_rows + row0;
      const uint16_t* column_lanes = m.column_lanes(buffer) + beside * m.tile_columns + column0;
      const int depth = static_cast<int>(min(static_cast<int64_t>(kChunk), tile.end - k0));
      constexpr int kGroup = ThreadSums::kSums == Sums::direct ? 1 : kUnroll;
      Lanes<R> now(row_lanes, column_lanes);
#pragma unroll 1
      for (int d = 0; d < depth; d += kGroup) {
#pragma unroll
        for (int u = 0; u < kGroup; ++u) {
          const bool more = u + 1 < kGroup || d + kGroup < kChunk;  // what follows a chunk is not there yet
          row_lanes += more ? m.pitch_r : 0;
          column_lanes += more ? m.pitch_c : 0;
          const Lanes<R> next(row_lanes, column_lanes);
          add_lanes(sums, now, tiled, table, m.row_bytes);
          now = next;
        }
        sums.flush(tiled.datapath, tiled.short_lanes);
        lanes_left -= kGroup;
        // Before a vector is closed: warps then close while others multiply.
        if (d + kGroup >= depth) m.multiplied(buffer).arrive();
        if (lanes_left == 0) {
          sums.close(tiled.datapath);
          lanes_left = tiled.datapath.vector_size;
          ++vector;
          if (k0 + d + kGroup < tile.end) load_shifts();
        }
      }
    }
    if (lanes_left != tiled.datapath.vector_size) sums.close(tiled.datapath);
    if constexpr (ThreadSums::kUse == Use::segment) {
      if (!mine) continue;
      for_rows<R>(tiled, tile, row0, column0, [&](int i, unsigned at) {
        int32_t* to = tiled.segment_sums + part() * 3 * cells + at;
        store_four(to, sums.sum[i]);
        store_four(to + cells, sums.from_low[i]);
        store_four(to + 2 * cells, sums.from_high[i]);
      });
    } else if constexpr (ThreadSums::kUse == Use::bounded) {
      if (!mine) continue;
      for_rows<R>(tiled, tile, row0, column0, [&](int i, unsigned at) {
        int32_t read[kColumns];
#pragma unroll
        for (int j = 0; j < kColumns; ++j) read[j] = sums.read(tiled.datapath, i, j);
        store_four(tiled.segment_sums + part() * cells + at, read);
      });
      const int64_t thread_at = (tile.row + row0) / R * tiled.across() + (tile.column + column0) / kColumns;
      reinterpret_cast<int2*>(tiled.segment_bounds)[part() * tiled.threads() + thread_at] =
          make_int2(sums.lowest, sums.highest);
    } else if (!tiled.starts) {
      write(tiled, m, tile, sums, mine, row0, column0);
    }
  }
  if (tiled.overflows && employed && sums.overflows)
    atomicAdd(tiled.overflows, static_cast<unsigned long long>(sums.overflows));
}

}  // namespace lns::cuda
