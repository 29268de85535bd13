// What follows a product whose K was cut: its segments are joined, and what saturates in them is found and put right.
#pragma once

#include "cuda/gemm_kernel.cuh"

namespace lns::cuda {

// What segments do to the accumulator that they start with.
template <Use use>
struct Step {
  int32_t sum, from_low, from_high;  // the latter of SegmentSums

  __device__ static Step nothing(const Accumulator<int32_t>& a) {
    return {.sum = 0, .from_low = static_cast<int32_t>(a.low), .from_high = static_cast<int32_t>(a.high)};
  }
  // One segment's; `again`: of SegmentSums, those before are bounded, and known not to saturate.
  __device__ static Step of(const TiledProduct& tiled, const Accumulator<int32_t>& a, unsigned cells, unsigned part,
                            bool again, unsigned cell) {
    Step step = nothing(a);
    if (use == Use::bounded || !again) {
      step.sum = (use == Use::bounded ? tiled.segment_sums : tiled.sums_before)[part * cells + cell];
    } else {
      const int32_t* from = tiled.segment_sums + part * 3 * cells + cell;
      step = {.sum = *from, .from_low = from[cells], .from_high = from[2 * cells]};
    }
    return step;
  }
  // Sums wrap: what is beyond the accumulator's range is either wrapped by it as well, or found not to fit.
  __device__ int32_t on(const Accumulator<int32_t>& a, int32_t acc) const {
    return use == Use::bounded ? a.narrow(added(acc, sum)) : clamped(acc + sum);
  }
  __device__ Step then(const Accumulator<int32_t>& a, const Step& next) const {
    if constexpr (use == Use::bounded) {
      return {.sum = added(sum, next.sum), .from_low = from_low, .from_high = from_high};
    } else {
      const int32_t most = 1 << min(a.acc_bits + 1, 30);
      return {.sum = max(-most, min(most, sum + next.sum)),
              .from_low = next.clamped(from_low + next.sum),
              .from_high = next.clamped(from_high + next.sum)};
    }
  }

 private:
  __device__ int32_t clamped(int32_t acc) const { return max(from_low, min(from_high, acc)); }
  __device__ static int32_t added(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
};

constexpr int kJoinThreads = 1024;  // at most, of a block
constexpr int kJoinLoads = 8;       // segments whose loads a thread has under way at once

// To walk through a segment for one output takes as long as so many outputs of a whole tile; codes that are apart along
// K lie in a sector of memory each.
constexpr int kWalkCost = 16, kApartWalkCost = 64;

// Of the tiles of SegmentSums behind a gate, so many segments, the last, are computed; none where few outputs are in
// doubt, which are then walked through.
__device__ inline int computed_again(const TiledProduct& tiled, int64_t gate) {
  const int segments = tiled.gates[gate];
  const bool apart = along_rows(tiled.rows.operand) || along_rows(tiled.columns.operand);
  return int64_t{apart ? kApartWalkCost : kWalkCost} * tiled.doubts[gate] <
                 segments * tiled.tile_rows * tiled.tile_columns
             ? 0
             : segments;
}

// Where the i-th cell of all products' stands.
struct Cell {
  unsigned instance, of_instance, thread, row, column;  // thread: whose bounds are the cell's, see for_rows

  __device__ Cell(const TiledProduct& tiled, unsigned i) {
    const unsigned cells = tiled.cells(), threads = tiled.threads(), across = tiled.across();
    instance = i / cells, of_instance = i % cells, thread = of_instance / kColumns % threads;
    row = thread / across * tiled.bounded_rows + of_instance / kColumns / threads;
    column = thread % across * kColumns + of_instance % kColumns;
  }
  __device__ bool exists(const TiledProduct& tiled) const {
    return row < tiled.rows.rows && column < tiled.columns.rows;
  }
  // Of a tile of SegmentSums.
  __device__ int64_t gate(const TiledProduct& tiled) const {
    return (instance * tiled.tiles_r + tiled.tile_rows.quotient(row)) * tiled.tiles_c +
           tiled.tile_columns.quotient(column);
  }
  __device__ void write(const TiledProduct& tiled, int32_t acc) const {
    const Offsets o = tiled.batch.at(instance);
    const int64_t at = o.output + axis_offset(tiled.rows.output, row) + axis_offset(tiled.columns.output, column);
    if (tiled.accumulators) {
      static_cast<int32_t*>(tiled.output)[at] = acc;
      return;
    }
    const auto factor = [](const Side& side, unsigned i, int64_t from) {
      return scale_factor(float_bits(side.scale[axis_offset(side.scale_axis, i) + from]));
    };
    static_cast<float*>(tiled.output)[at] =
        read_out(acc, unit_factor(tiled.datapath) * factor(tiled.rows, row, o.left_scale) *
                          factor(tiled.columns, column, o.right_scale));
  }
};

// May a segment saturate that starts with acc, whose sums ran within `range` from 0? Bounds hold 0: these differences
// do not overflow.
__device__ inline bool may_saturate(const Accumulator<int32_t>& a, int32_t acc, int2 range) {
  return min(acc, 0) < static_cast<int32_t>(a.low) - range.x || max(acc, 0) > static_cast<int32_t>(a.high) - range.y;
}

// Carries accumulators through the segments of every output and writes the results; `starts`, unless null, takes what
// each segment starts with. With bounded sums a saturating accumulator may turn out to be in doubt from a segment on:
// the gate of its tile of SegmentSums takes how many these are, and the output is written down. Where SegmentSums were
// computed, they are joined behind bounded ones. A block takes `width` cells at a time, each of so many threads a share
// of the segments: first what the share does to any accumulator, then to its own. There are fewer than 2^28 numbers of
// all segments (kSegmentBytes).
template <Use use>
__global__ void __launch_bounds__(kJoinThreads)
    join_segments(const __grid_constant__ TiledProduct tiled, int32_t* starts, int width) {
  if (use == Use::bounded) let_next_begin();
  wait_for_previous();
  if (use == Use::segment && *tiled.chosen == 0) return;
  __shared__ Step<use> shares[kJoinThreads];
  __shared__ int doubts[32];  // of each cell
  const Accumulator<int32_t> a(tiled.datapath);
  const int segments = tiled.segments, shared_by = blockDim.x / width, mine = threadIdx.x / width,
            place = threadIdx.x % width;
  const int share = (segments + shared_by - 1) / shared_by, begin = min(segments, mine * share),
            end = min(segments, begin + share);
  const unsigned cells = tiled.cells(), all = cells * tiled.batch.count(), threads = tiled.threads();
  const bool saturates = use == Use::bounded && a.overflow == Overflow::saturate;
  for (unsigned first = blockIdx.x * width; first < all; first += gridDim.x * width) {
    const Cell cell(tiled, min(first + place, all - 1));
    const unsigned part = cell.instance * segments;
    const bool exists = first + place < all && cell.row < tiled.rows.rows;
    const int64_t gate = exists ? cell.gate(tiled) : 0;
    const int again = segments - (use == Use::segment && exists ? computed_again(tiled, gate) : 0);
    const bool open = exists && begin < end && (use != Use::segment || again < segments);
    const auto* bounds = reinterpret_cast<const int2*>(tiled.segment_bounds) + part * threads + cell.thread;
    // Calls body(segment, its step, its bounds) for the share, whose loads do not wait for each other.
    const auto for_share = [&](bool bounded, auto body) {
      for (int s = begin; s < end; s += kJoinLoads) {
        Step<use> steps[kJoinLoads];
        int2 range[kJoinLoads];
#pragma unroll
        for (int u = 0; u < kJoinLoads; ++u) {
          const int at = min(s + u, end - 1);
          steps[u] = Step<use>::of(tiled, a, cells, part + at, at >= again, cell.of_instance);
          range[u] = bounded ? bounds[at * threads] : make_int2(0, 0);
        }
#pragma unroll
        for (int u = 0; u < kJoinLoads; ++u)
          if (s + u < end) body(s + u, steps[u], range[u]);
      }
    };
    __syncthreads();  // all are done with the last shares
    if (saturates && threadIdx.x < width) doubts[threadIdx.x] = 0;
    if (open) {
      Step<use> all_steps = Step<use>::nothing(a);
      for_share(false, [&](int, const Step<use>& step, int2) { all_steps = all_steps.then(a, step); });
      shares[threadIdx.x] = all_steps;
    }
    __syncthreads();
    if (open) {
      int32_t acc = 0;
      for (int before = place; before < static_cast<int>(threadIdx.x); before += width) acc = shares[before].on(a, acc);
      int fitting = segments, doubtful = 0;  // so many, as far as this share tells
      for_share(saturates, [&](int s, const Step<use>& step, int2 range) {
        if (starts) starts[(part + s) * cells + cell.of_instance] = acc;
        if (saturates && s > 0 && may_saturate(a, acc, range)) fitting = min(fitting, s), ++doubtful;
        acc = step.on(a, acc);
      });
      if (doubtful > 0 && cell.exists(tiled)) {
        atomicMax(tiled.gates + gate, segments - fitting);
        atomicAdd(doubts + place, doubtful);
      }
      if (end == segments && cell.exists(tiled)) cell.write(tiled, acc);
    }
    if (!saturates) continue;
    __syncthreads();
    if (threadIdx.x < width && doubts[threadIdx.x] > 0) {  // the first share's are cells in their order
      atomicAdd(tiled.doubts + gate, doubts[threadIdx.x]);
      tiled.doubtful[atomicAdd(tiled.chosen - 1, 1)] = static_cast<int32_t>(first + threadIdx.x);
    }
  }
}

constexpr int kWalkers = 512;      // threads that walk through an output together
constexpr int kWalked = kWalkers;  // segments, or vectors, at a time

// An operand's codes along one row, as lanes of the product table.
class RowOfLanes {
 public:
  __device__ RowOfLanes(const Side& side, int64_t offset, unsigned row, const LaneCode& lane_code)
      : operand_(side.operand),
        codes_(side.operand.codes.at(offset)),
        extent_(extent(side.operand)),
        row_(row_coordinates(side.operand, row, side.rows)),
        lane_code_(lane_code) {}
  __device__ uint32_t at(int64_t k, int64_t end) const {
    const int code = load_code(codes_, extent_, row_, k_coordinates(operand_, k, end));
    const uint32_t exponent = codes_.exponent(code), negative = code >> (codes_.format.bits - 1) & 1;
    return exponent == 0 ? 0 : exponent + lane_code_.zero_shift + negative * lane_code_.sign_step;
  }

 private:
  const OperandView& operand_;
  CodeView codes_;
  Extent extent_;
  Coordinates row_;
  const LaneCode& lane_code_;
};

// Walks through an output, a block at once: where a segment does not saturate from what it starts with, its bounded sum
// counts, else its vectors are summed anew. As segments in doubt come in runs, those of the next ones are summed at
// once, of ever more of them.
__device__ inline void walk_through(const TiledProduct& tiled, const Cell& cell, int32_t* starts) {
  __shared__ int32_t sums[kWalked], vectors[kWalked];
  __shared__ int2 ranges[kWalked];
  constexpr int kWarps = kWalkers / 32, kAtOnce = 4;
  const Accumulator<int32_t> a(tiled.datapath);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, vector_size = tiled.datapath.vector_size;
  const unsigned cells = tiled.cells(), threads = tiled.threads();
  const int64_t all_vectors = (tiled.k + vector_size - 1) / vector_size;
  const Offsets offsets = tiled.batch.at(cell.instance);
  const RowOfLanes rows(tiled.rows, offsets.left, cell.row, tiled.lane_code),
      columns(tiled.columns, offsets.right, cell.column, tiled.lane_code);
  const auto share_of_sum = [&](int64_t vector) {  // this thread's
    int32_t sum = 0;
    for (int i = lane; i < vector_size; i += 32) {
      const int64_t k = vector * vector_size + i;
      sum += __ldg(tiled.table + rows.at(k, tiled.k) + columns.at(k, tiled.k));
    }
    return sum;
  };
  const auto aligned = [&](int32_t sum, int64_t vector) {
    if (tiled.blocks == 0) return a.aligned(sum);
    const int64_t block = cell.instance * tiled.blocks + vector / tiled.block_vectors;
    return a.shifted(sum, tiled.row_shifts.data[block * tiled.row_shifts.pitch + cell.row] +
                              tiled.column_shifts.data[block * tiled.column_shifts.pitch + cell.column]);
  };
  int64_t first = 0, behind = 0;  // of the vectors that are summed
  const auto sum_vectors = [&](int64_t from, int64_t to) {
    first = from, behind = min(to, from + kWalked);
    const int count = static_cast<int>(behind - first);
    __syncthreads();
    for (int v = warp; v < count; v += kWarps * kAtOnce) {
      int32_t sum[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) sum[u] = share_of_sum(first + min(v + u * kWarps, count - 1));
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        sum[u] = __reduce_add_sync(~0u, sum[u]);
        if (lane == 0 && v + u * kWarps < count) vectors[v + u * kWarps] = aligned(sum[u], first + v + u * kWarps);
      }
    }
    __syncthreads();
  };
  // What they do to an accumulator: a lane's neighbours, then neighbouring lanes'.
  const auto accumulated = [&](int32_t acc, int64_t from, int64_t to) {
    using Act = Step<Use::segment>;
    const int count = static_cast<int>(to - from), each = (count + 31) / 32;
    Act act = Act::nothing(a);
    for (int v = lane * each; v < min(count, (lane + 1) * each); ++v) {
      const int32_t sum = vectors[from - first + v];
      act = act.then(a, {.sum = sum,
                         .from_low = a.saturated(static_cast<int32_t>(a.low) + sum),
                         .from_high = a.saturated(static_cast<int32_t>(a.high) + sum)});
    }
    for (int d = 1; d < 32; d *= 2)
      act = act.then(a, {.sum = __shfl_down_sync(~0u, act.sum, d),
                         .from_low = __shfl_down_sync(~0u, act.from_low, d),
                         .from_high = __shfl_down_sync(~0u, act.from_high, d)});
    return __shfl_sync(~0u, act.on(a, acc), 0);
  };
  const unsigned part = cell.instance * tiled.segments;
  int32_t acc = 0;
  int ahead = 1, summed = 0;  // segments: that are summed at once; behind the last that is
  for (int s = 0; s < tiled.segments; ++s) {
    if (s % kWalked == 0) {
      __syncthreads();
      if (const int mine = s + threadIdx.x; mine < tiled.segments) {
        sums[threadIdx.x] = tiled.sums_before[(part + mine) * cells + cell.of_instance];
        ranges[threadIdx.x] =
            reinterpret_cast<const int2*>(tiled.segment_bounds)[(part + mine) * threads + cell.thread];
      }
      __syncthreads();
    }
    if (starts && threadIdx.x == 0) starts[(part + s) * cells + cell.of_instance] = acc;
    if (s == 0 || !may_saturate(a, acc, ranges[s % kWalked])) {
      acc += sums[s % kWalked];
      continue;
    }
    const int64_t end = min(all_vectors, (s + 1) * tiled.segment_vectors);
    for (int64_t v = s * tiled.segment_vectors; v < end; v = min(end, behind)) {
      if (v >= behind) {
        ahead = s <= summed + ahead ? min(2 * ahead, kWalked) : 1;
        summed = s + ahead;
        sum_vectors(v, min(all_vectors, summed * tiled.segment_vectors));
      }
      acc = accumulated(acc, v, min(end, behind));
    }
  }
  if (threadIdx.x == 0) cell.write(tiled, acc);
}

// Puts right what may have saturated, by the cheaper of two ways. Writes down which tiles of SegmentSums are computed,
// so that blocks share them evenly; and walks through the outputs that are in doubt but in no such tile.
__global__ void __launch_bounds__(kWalkers, 1) settle(const __grid_constant__ TiledProduct tiled, int32_t* starts) {
  let_next_begin();
  wait_for_previous();
  const int in_doubt = tiled.chosen[-1];
  if (in_doubt == 0) return;  // as mostly
  for (int64_t i = blockIdx.x * int64_t{kWalkers} + threadIdx.x; i < tiled.tiles; i += gridDim.x * int64_t{kWalkers}) {
    const Tile tile(tiled, static_cast<unsigned>(i));
    if (tiled.segments - computed_again(tiled, tile.gate) < min(tiled.segments, tile.segment + tiled.together))
      tiled.chosen[1 + atomicAdd(tiled.chosen, 1)] = static_cast<int32_t>(i);
  }
  __shared__ bool walked[kWalkers];
  const int mine = blockIdx.x + threadIdx.x * gridDim.x, step = kWalkers * gridDim.x;
  for (int first = 0; static_cast<int>(blockIdx.x) + first < in_doubt; first += step) {
    const int n = mine + first;
    const bool walks = n < in_doubt && computed_again(tiled, Cell(tiled, tiled.doubtful[n]).gate(tiled)) == 0;
    if (!__syncthreads_or(walks)) continue;
    walked[threadIdx.x] = walks;
    __syncthreads();
    for (int i = 0; i < kWalkers; ++i)
      if (walked[i]) walk_through(tiled, Cell(tiled, tiled.doubtful[blockIdx.x + first + i * gridDim.x]), starts);
  }
}

}  // namespace lns::cuda
