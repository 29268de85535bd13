// How products are cut into tiles and segments, and the launches.
#include "cuda/gemm.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/bins.cuh"
#include "cuda/check.h"
#include "cuda/gemm_kernel.cuh"
#include "cuda/lane_counter.cuh"
#include "cuda/limits.h"
#include "cuda/product_table.h"
#include "cuda/segments.cuh"

namespace lns::cuda {

namespace {

// ---- The rules: which tile a product takes, and into how many segments its K is cut.

struct Tiling {
  bool exchanged;  // the product's right side along the tile's rows
  int rows_per_thread, tile_r, tile_c, together;
  int64_t tiles_r, tiles_c, segments, segment_vectors;
  int table_shift;
};

// Clocks of a multiprocessor, fitted to 10,000 measured tilings of products on an H100, where those found cheapest take
// 1 % longer than the fastest. Of a thread's look-up, while up to four warps multiply, one on each scheduler, or more;
// what surrounds a lane's look-ups counts as so many, and where bounds are kept all takes longer. A lane that is
// fetched in words, or code by code; of what takes less, multiplying or fetching, this share shows. A tile's start, and
// for each row or column that it fetches; a warp's store of a row. Segments are joined by kernels of their own: so many
// clocks, outputs and numbers a clock.
constexpr double kFourWarpsClocks = 4.3, kEightWarpsClocks = 6.65, kLaneLookUps = 18, kBoundsClocks = 1.07;
constexpr double kWordClocks = 0.7, kCodeClocks = 1, kHiddenShare = 0.1;
constexpr double kTileClocks = 1000, kPlaceClocks = 12, kStoreClocks = 30, kScatterClocks = 110;
constexpr double kJoinClocks = 20000, kJoinedOutputsPerClock = 12, kJoinedPerClock = 150;
constexpr int64_t kMostWaves = 8;
constexpr int64_t kSegmentBytes = int64_t{1} << 28;

int shared_bytes(const ProductTable& t, int table_shift, int rows, int columns) {
  const int table = 4 * static_cast<int>(t.rows.size()) << table_shift;
  return ((table + 15) & ~15) + tile_bytes(rows, columns);
}

// That a table's rows take, of 64 bits.
size_t words(const ProductTable& t) { return (t.rows.size() + 1) / 2; }

int bounded_rows(const Product& p) { return p.block > 0 ? 8 : kBoundedRows; }

// May a side be read in words (Fetcher)? Four neighbours then always lie in one line, from an aligned word on, or moved
// against it by a tap.
bool reads_words(const Side& side, const Batch& batch, bool left, int64_t k) {
  const auto fours = [](auto... n) { return ((n % 4 == 0) && ...); };
  const OperandView& o = side.operand;
  if (o.codes.wide() || reinterpret_cast<uintptr_t>(o.codes.data) % 4 != 0) return false;
  for (int d = 0; d < batch.dims; ++d)
    if (!fours(left ? batch.strides[d].left : batch.strides[d].right)) return false;
  const Axis& a = o.k_axis;
  if (o.kind == OperandView::Kind::strided)
    return along_rows(o) ? o.row_stride == 1 && fours(side.rows, a.inner_stride, a.middle_stride, a.outer_stride)
                         : a.inner_stride == 1 && fours(k, a.inner, a.middle_stride, a.outer_stride, o.row_stride);
  const Patches& i = o.patches;
  return i.x.grow == i.x.shrink && i.x.image_stride == 1 &&
         fours(i.x.grid, i.x.image, i.y.image_stride, i.channel_stride, i.batch_stride);
}

// Along K, lines of an operand and how many of them follow each other before the next level.
std::pair<int64_t, int64_t> lines(const OperandView& o) {
  if (o.kind == OperandView::Kind::strided) return {o.k_axis.inner, o.k_axis.middle};
  return {o.patches.x.grid, o.patches.y.grid};
}

// Do the coordinates of k within a segment add to those of its start, wherever that is?
bool splits_at(const OperandView& o, int64_t lanes) {
  if (o.kind == OperandView::Kind::positions) return false;
  const auto [line, count] = lines(o);
  if (line % lanes == 0) return true;
  return lanes % line == 0 && (count % (lanes / line) == 0 || lanes / line % count == 0);
}

// Vectors of a segment, of the ways to cut K into segments that are alike: coordinates of k within one add to those of
// its start. Powers of two of vectors, lines and images.
std::vector<int64_t> alike_segments(const Product& p, int vector_size) {
  std::vector<int64_t> found;
  const auto [line, count] = lines(p.right.operand);
  int64_t last = 0;
  for (const int64_t size : {int64_t{1}, line, line * count}) {
    const int64_t first = size / std::gcd(size, int64_t{vector_size});
    if (first == last) continue;
    last = first;
    for (int64_t each = first; 2 * each * vector_size <= p.k; each *= 2) {
      const int64_t lanes = each * vector_size;
      if (p.k % lanes == 0 && splits_at(p.left.operand, lanes) && splits_at(p.right.operand, lanes))
        found.push_back(each);
    }
  }
  return found;
}

// The cheapest cut by the rules.
Tiling choose(const Product& p, const ProductTable& t, const Datapath& d, const Limits& limits) {
  Tiling best{};
  double least = 0;
  const bool shifted = p.block > 0, can_cut = t.sums == Sums::fused && (!shifted || t.apart32) &&
                                              (d.overflow == Overflow::wrap || d.acc_bits <= kMostSegmentBits);
  const int64_t vectors = std::max<int64_t>(1, ceil_div(p.k, d.vector_size)), batch = p.batch.count();
  // Outputs, filled up as those of segments are at most (TiledProduct::cells).
  const int64_t cells = ceil_div(p.left.rows, 16) * 16 * ceil_div(p.right.rows, 16) * 16 * batch;
  const int64_t most_segments = can_cut ? std::clamp<int64_t>(kSegmentBytes / (16 * cells), 1, vectors) : 1;
  const std::vector<int64_t> alike = can_cut ? alike_segments(p, d.vector_size) : std::vector<int64_t>{};
  for (const bool exchanged : {false, true}) {
    const Side &rows = exchanged ? p.right : p.left, &columns = exchanged ? p.left : p.right;
    const double row_clocks = reads_words(rows, p.batch, !exchanged, p.k) ? kWordClocks : kCodeClocks,
                 column_clocks = reads_words(columns, p.batch, exchanged, p.k) ? kWordClocks : kCodeClocks;
    const int64_t across = ceil_div(columns.rows, kColumns);
    const auto consider = [&](int per_thread, int tile_r, int tile_c, int together) {
      Tiling c = {.exchanged = exchanged,
                  .rows_per_thread = per_thread,
                  .tile_r = tile_r,
                  .tile_c = tile_c,
                  .together = together,
                  .tiles_r = ceil_div(rows.rows, per_thread * tile_r),
                  .tiles_c = ceil_div(across, tile_c),
                  .segments = 1,
                  .segment_vectors = 1,
                  .table_shift = t.sums == Sums::direct ? 0 : 5};
      const auto fetched_rows = [&] { return fetched(per_thread, tile_r, c.together); };
      const auto fetched_columns = [&] { return fetched(kColumns, tile_c, c.together); };
      const auto fits = [&] {
        return shared_bytes(t, c.table_shift, fetched_rows(), fetched_columns()) <= limits.shared_bytes;
      };
      while (c.together > 1 && !fits()) --c.together;
      if (together > 1 && c.together == 1) return;
      while (c.table_shift > 0 && !fits()) --c.table_shift;
      if (!fits()) return;
      // Warps outside the outputs cost nothing. Tiles that are full set the pace.
      const int64_t warps = tile_c % 32 == 0 ? std::min<int64_t>(tile_r, ceil_div(rows.rows, per_thread)) *
                                                   std::min<int64_t>(tile_c / 32, ceil_div(across, 32)) * c.together
                                             : ceil_div(tile_r * tile_c * c.together, 32);
      const double look_ups = per_thread * kColumns * (1 << (5 - c.table_shift)) + kLaneLookUps;
      const double multiplying = look_ups * (warps > 4 ? kEightWarpsClocks : kFourWarpsClocks),
                   fetching = fetched_rows() * row_clocks + fetched_columns() * column_clocks;
      // From a stride of eight floats on every one lies in a sector of its own.
      const double apart = static_cast<double>(std::min<int64_t>(columns.output.inner_stride - 1, 7)) / 7;
      const double rows_stored = static_cast<double>(warps * per_thread), store = rows_stored * kStoreClocks,
                   scatter = store + rows_stored * apart * (kScatterClocks - kStoreClocks);
      const double start = kTileClocks + kPlaceClocks * (fetched_rows() + fetched_columns());
      const int64_t tiles = c.tiles_r * c.tiles_c * batch;
      const auto cut = [&](int64_t segment_vectors) {
        c.segments = ceil_div(vectors, segment_vectors), c.segment_vectors = segment_vectors;
        if (c.segments > most_segments || c.segments < c.together) return;
        const bool joined = c.segments > 1;
        const double waves =
            static_cast<double>(ceil_div(tiles * ceil_div(c.segments, c.together), limits.multiprocessors));
        const double bounded = multiplying * (joined ? kBoundsClocks : 1);
        const double lane = bounded > fetching ? bounded + kHiddenShare * fetching
                                               : fetching + kHiddenShare * look_ups * static_cast<double>(warps);
        double clocks =
            waves * (lane * static_cast<double>(segment_vectors * d.vector_size) + (joined ? store : scatter) + start);
        if (joined)
          clocks += kJoinClocks + static_cast<double>(cells) / kJoinedOutputsPerClock +
                    static_cast<double>(c.segments * cells) / kJoinedPerClock;
        if (least == 0 || clocks < least) best = c, least = clocks;
      };
      if (c.together > 1) {
        for (const int64_t segment_vectors : alike) cut(segment_vectors);
        return;
      }
      cut(vectors);
      if (per_thread != bounded_rows(p)) return;
      for (int64_t waves = 1; waves <= kMostWaves; ++waves)  // that are full
        if (const int64_t n = std::min(waves * limits.multiprocessors / tiles, most_segments); n > 1)
          cut(ceil_div(vectors, n));
    };
    for (const int per_thread : {16, 8}) {
      if (per_thread == 16 && (shifted || t.sums != Sums::fused)) continue;
      const int64_t down = ceil_div(rows.rows, per_thread);
      for (const int tile_r : {8, 4, 2, 1}) {
        if (tile_r > 1 && tile_r / 2 >= down) continue;
        for (const int tile_c : {32, 64, 128})
          if (tile_r * tile_c <= kMultipliers * 32 && (tile_c == 32 || tile_c / 2 < across))
            consider(per_thread, tile_r, tile_c, 1);
        for (const int parts : {1, 2, 3}) {
          const int64_t tile_c = ceil_div(across, parts);
          if (tile_c * tile_r > kMultipliers * 32 || per_thread != bounded_rows(p)) continue;
          int last = 1;
          if (tile_c % 32 != 0) consider(per_thread, tile_r, static_cast<int>(tile_c), 1);
          for (const int warps : {3, 4, 6, 8}) {
            const int together = warps * 32 / static_cast<int>(tile_r * tile_c);
            if (together > last) consider(per_thread, tile_r, static_cast<int>(tile_c), last = together);
          }
        }
      }
    }
  }
  if (least == 0)  // no GPU of compute capability 8.0 or later is so small
    throw std::runtime_error("this GPU lends a block only " + std::to_string(limits.shared_bytes) +
                             " bytes of shared memory");
  return best;
}

// Cuts outputs into tiles of a kernel's own height.
template <typename ThreadSums>
void set_tiles(TiledProduct& tiled) {
  constexpr int R = ThreadSums::kRows;
  tiled.tile_rows = R * tiled.tile_r, tiled.tile_columns = kColumns * tiled.tile_c;
  tiled.tiles_r = ceil_div(tiled.rows.rows, tiled.tile_rows);
  tiled.groups = ceil_div(tiled.segments, tiled.together);
  tiled.tiles = tiled.tiles_r * tiled.tiles_c * tiled.groups * tiled.batch.count();
  if (tiled.tiles > INT32_MAX)
    throw std::invalid_argument("a product on a GPU must have fewer than 2^31 tiles of outputs, got " +
                                std::to_string(tiled.tiles));
}

// Enqueues a kernel.
template <typename ThreadSums>
void launch(TiledProduct tiled, const ProductTable& t, const Launch& at) {
  constexpr int R = ThreadSums::kRows;
  set_tiles<ThreadSums>(tiled);
  const int bytes = shared_bytes(t, tiled.table_shift, fetched(R, tiled.tile_r, tiled.together),
                                 fetched(kColumns, tiled.tile_c, tiled.together));
  const int64_t blocks = std::min<int64_t>(tiled.tiles, Limits(at.device).multiprocessors);
  check(cudaFuncSetAttribute(multiply<ThreadSums>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory");
  constexpr int threads = 32 * (kMultipliers + kFetchers);
  if constexpr (ThreadSums::kUse == Use::segment) {
    launch_overlapped(multiply<ThreadSums>, blocks, threads, bytes, at, tiled);
  } else {
    multiply<ThreadSums><<<static_cast<unsigned>(blocks), threads, bytes, at.stream>>>(tiled);
    check(cudaGetLastError(), "multiply");
  }
}

template <Use use>
void join(const TiledProduct& tiled, int32_t* starts, const Launch& at) {
  const int64_t shares = ceil_div(tiled.segments, kJoinLoads);
  const int width = shares * 32 > kJoinThreads ? 16 : 32;
  const int threads = static_cast<int>(std::min<int64_t>(ceil_div(shares * width, 32) * 32, kJoinThreads));
  const int64_t blocks =
      std::min<int64_t>(ceil_div(tiled.cells() * tiled.batch.count(), width), Limits(at.device).multiprocessors * 32);
  launch_overlapped(join_segments<use>, blocks, threads, 0, at, tiled, starts, width);
}

constexpr int kSettlers = 1;  // blocks of a multiprocessor

// Segments of K at once, then joined. First as if no accumulation saturated behind the first segment, which is rare and
// found out; then what may have saturated is settled, on the device's own decision: few outputs one by one, else the
// tiles where they are, from that segment on, by what each segment does to any start.
template <typename Bounded, typename Segment, typename Overflows>
void run_segments(TiledProduct tiled, const ProductTable& t, const Launch& at) {
  const bool saturates = tiled.datapath.overflow == Overflow::saturate;
  const int64_t parts = tiled.batch.count() * tiled.segments, outputs = tiled.batch.count() * tiled.cells(),
                each = tiled.segments * outputs;
  set_tiles<Segment>(tiled);
  const int64_t gates = tiled.tiles / tiled.groups;
  unsigned long long* overflows = std::exchange(tiled.overflows, nullptr);
  // All scratch in one allocation: sums, those of SegmentSums, starts, bounds, gates and doubts, what is chosen.
  auto* words = static_cast<int32_t*>(
      at.allocate(sizeof(int32_t) * (each * (1 + 3 * saturates + (overflows != nullptr)) + 2 * parts * tiled.threads() +
                                     2 * gates + 2 + tiled.tiles + outputs)));
  const auto take = [&](int64_t n) { return std::exchange(words, words + n); };
  tiled.segment_sums = take(each);
  int32_t* again = saturates ? take(3 * each) : nullptr;
  int32_t* starts = overflows ? take(each) : nullptr;
  tiled.segment_bounds = take(2 * parts * tiled.threads());
  tiled.gates = take(gates);
  tiled.doubts = take(gates + 1);
  tiled.chosen = take(1 + tiled.tiles);
  tiled.doubtful = words;
  launch<Bounded>(tiled, t, at);
  join<Use::bounded>(tiled, starts, at);
  if (saturates) {
    tiled.sums_before = std::exchange(tiled.segment_sums, again);
    launch_overlapped(settle, Limits(at.device).multiprocessors * kSettlers, kWalkers, 0, at, tiled, starts);
    launch<Segment>(tiled, t, at);
    join<Use::segment>(tiled, starts, at);
  }
  if (overflows) {  // which accumulations overflow depends on where a segment starts: a second walk counts them
    tiled.starts = starts;
    tiled.overflows = overflows;
    launch<Overflows>(tiled, t, at);
  }
}

// A side's shifts as the kernel reads them; no data where K is empty, as between the positions of a stride.
GatheredShifts gather(const Side& side, const TiledProduct& tiled, bool left, const Launch& at) {
  const int64_t pitch = shift_pitch(side.rows), batch = tiled.batch.count(), bytes = batch * tiled.blocks * pitch;
  if (bytes == 0) return {};
  auto* data = static_cast<uint8_t*>(at.allocate(bytes));
  if (side.shifts.codes.data == nullptr) {  // the side has none
    check(cudaMemsetAsync(data, 0, bytes, at.stream), "memset");
    return {.data = data, .pitch = pitch};
  }
  const int64_t threads = std::min<int64_t>(pitch / 4, 256), shared = 1024 * Limits(at.device).multiprocessors;
  const int64_t each = std::clamp<int64_t>(bytes / 4 / shared, 1, kShiftBlocks);
  const dim3 grid(static_cast<unsigned>(ceil_div(pitch / 4, threads)),
                  static_cast<unsigned>(std::min<int64_t>(batch * ceil_div(tiled.blocks, each), 65535)));
  gather_shifts<<<grid, static_cast<unsigned>(threads), 0, at.stream>>>(side, tiled.batch, left, tiled.blocks, each,
                                                                        pitch, data);
  check(cudaGetLastError(), "gather_shifts");
  return {.data = data, .pitch = pitch};
}

constexpr int kGatedRows = 8;  // of a thread, where segments are computed again

// `tables`: the device's copy of Engine::tables, in which this table's rows begin at `rows`.
void run_tiles(const Product& p, const ProductTable& t, size_t rows, const Datapath& d, const int64_t* tables,
               bool accumulators, unsigned long long* overflows, const Launch& at) {
  const bool shifted = p.block > 0;
  const Tiling c = choose(p, t, d, Limits(at.device));
  TiledProduct tiled = {.rows = c.exchanged ? p.right : p.left,
                        .columns = c.exchanged ? p.left : p.right,
                        .batch = c.exchanged ? p.batch.exchanged() : p.batch,
                        .output = p.output,
                        .k = p.k,
                        .accumulators = accumulators,
                        .datapath = d,
                        .lane_code = t.lane_code,
                        .table_rows = static_cast<int>(t.rows.size()),
                        .table_shift = c.table_shift,
                        .short_lanes = t.short_lanes,
                        .table = reinterpret_cast<const int32_t*>(tables + rows),
                        .products = tables,
                        .block_vectors = static_cast<int>(p.block / d.vector_size),
                        .blocks = shifted ? p.blocks() : 0,
                        .tile_r = c.tile_r,
                        .tile_c = c.tile_c,
                        .together = c.together,
                        .tiles_c = c.tiles_c,
                        .segments = static_cast<int>(c.segments),
                        .segment_vectors = c.segment_vectors,
                        .bounded_rows = bounded_rows(p),
                        .overflows = overflows};
  tiled.row_words = reads_words(tiled.rows, tiled.batch, true, p.k);
  tiled.column_words = reads_words(tiled.columns, tiled.batch, false, p.k);
  if (shifted) {
    tiled.row_shifts = gather(tiled.rows, tiled, true, at);
    tiled.column_shifts = gather(tiled.columns, tiled, false, at);
  }
  if (c.segments > 1 && shifted)
    run_segments<ShiftedSums<8, Use::bounded, int32_t, int32_t>, SegmentSums<kGatedRows, true>,
                 ShiftedSums<8, Use::overflows, int32_t, int32_t>>(tiled, t, at);
  else if (c.segments > 1)
    run_segments<FusedSums<kBoundedRows, Use::bounded>, SegmentSums<kGatedRows, false>, FusedSums<8, Use::overflows>>(
        tiled, t, at);
  else if (shifted && t.sums == Sums::direct)
    launch<ShiftedSums<8, Use::overflows, int64_t>>(tiled, t, at);
  else if (shifted && t.sums == Sums::float64)
    launch<ShiftedSums<8, Use::overflows, double>>(tiled, t, at);
  else if (shifted && !t.apart32)
    launch<ShiftedSums<8, Use::overflows, int32_t>>(tiled, t, at);
  else if (shifted && overflows)
    launch<ShiftedSums<8, Use::overflows, int32_t, int32_t>>(tiled, t, at);
  else if (shifted)
    launch<ShiftedSums<8, Use::results, int32_t, int32_t>>(tiled, t, at);
  else if (t.sums == Sums::wide)
    launch<WideSums<8>>(tiled, t, at);
  else if (t.sums == Sums::float64)
    launch<Float64Sums<8>>(tiled, t, at);
  else if (t.sums == Sums::direct)
    launch<DirectSums<8>>(tiled, t, at);
  else if (overflows)
    launch<FusedSums<8, Use::overflows>>(tiled, t, at);
  else if (c.rows_per_thread == 16)
    launch<FusedSums<16, Use::results>>(tiled, t, at);
  else
    launch<FusedSums<8, Use::results>>(tiled, t, at);
}

void run_in_bins(const Product& p, const BinTable& t, const Datapath& d, const int64_t* tables, bool accumulators,
                 unsigned long long* overflows, const Launch& at) {
  const int64_t tiles_r = ceil_div(p.left.rows, kBinSide), tiles_c = ceil_div(p.right.rows, kBinSide);
  const int64_t tiles = tiles_r * tiles_c * p.batch.count();
  const int64_t blocks = std::min<int64_t>(tiles, Limits(at.device).multiprocessors * 8);
  const int64_t bytes = int64_t{t.bins} * kBinThreads * static_cast<int64_t>(sizeof(int64_t));
  const bool shared = t.bins <= kSharedBins;
  multiply_in_bins<<<static_cast<unsigned>(blocks), kBinThreads, shared ? bytes : 0, at.stream>>>(
      {.product = p,
       .datapath = d,
       .sums = t.sums,
       .bins = t.bins,
       .table = tables,
       .scratch = shared ? nullptr : static_cast<int64_t*>(at.allocate(blocks * bytes)),
       .accumulators = accumulators,
       .overflows = overflows,
       .tiles_r = tiles_r,
       .tiles_c = tiles_c,
       .tiles = tiles});
  check(cudaGetLastError(), "multiply_in_bins");
}

}  // namespace

Engine::Engine(const Datapath& datapath) : datapath_(datapath) {
  validate(datapath);
  if (datapath.bin_bits != 0) {
    bin_table_ = std::make_unique<const BinTable>(datapath);
    tables_ = bin_table_->all;
    return;
  }
  table_ = std::make_unique<const ProductTable>(datapath);
  table_for_blocks_ = std::make_unique<const ProductTable>(datapath, true);
  tables_ = table_->products;  // then the rows of both, 32-bit
  for (const ProductTable* t : {table_.get(), table_for_blocks_.get()}) {
    const size_t rows = tables_.size();
    tables_.resize(rows + words(*t));
    std::copy(t->rows.begin(), t->rows.end(), reinterpret_cast<int32_t*>(tables_.data() + rows));
  }
}

Engine::~Engine() = default;

void Engine::run(const Product& p, const int64_t* tables, bool accumulators, Counters* counters,
                 const Launch& at) const {
  if (p.empty()) return;
  check_sizes(p);
  unsigned long long* overflows = counters ? as_unsigned(&counters->saturations) : nullptr;
  if (bin_table_)
    run_in_bins(p, *bin_table_, datapath_, tables, accumulators, overflows, at);
  else if (p.block > 0)
    run_tiles(p, *table_for_blocks_, table_->products.size() + words(*table_), datapath_, tables, accumulators,
              overflows, at);
  else
    run_tiles(p, *table_, table_->products.size(), datapath_, tables, accumulators, overflows, at);
  if (counters)
    enqueue_lane_counts(p, datapath_.format, datapath_.first_visible_product(), datapath_.vector_size, counters,
                        Limits(at.device), at);
}

void enqueue_lane_counts(const Product& p, const Format& format, int64_t first_visible, int vector_size,
                         Counters* counters, const Limits& limits, const Launch& at) {
  const int levels = format.e_max() + 1, window = std::min(levels, kLevels);
  const int depth = std::clamp(2048 / window, 1, 8);
  const int64_t units = ceil_div(p.k, depth) * p.batch.count();
  if (units == 0) return;  // sums of nothing, as of a weight gradient over no images
  const int64_t vectors = p.left.rows * p.right.rows * p.batch.count() * ceil_div(p.k, vector_size);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(units, limits.multiprocessors * 8));
  count_lanes<<<blocks, 256, depth * window * sizeof(int), at.stream>>>(
      p, levels, first_visible, depth, static_cast<unsigned long long>(vectors), counters);
  check(cudaGetLastError(), "count_lanes");
}

}  // namespace lns::cuda
