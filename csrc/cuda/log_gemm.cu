// Tiles and launches of products on datapaths that add logarithms.
#include "cuda/log_gemm.h"

#include <algorithm>

#include "cuda/counting.h"
#include "cuda/limits.h"
#include "cuda/log_kernel.cuh"

namespace lns::cuda {

namespace {

// Tables up to so many bytes are repeated, for fewer bank conflicts; two blocks have room beside each other.
constexpr int kRepeatedBytes = 1 << 15, kMostRepeats = 5;

template <LogSteps Where, LogUse Use, bool Tree, int R, int C>
void launch(LogTiledProduct t, int table_bytes, const Launch& at) {
  using Tile = LogTile<R, C>;
  t.tiles_r = ceil_div(t.rows.rows, Tile::rows), t.tiles_c = ceil_div(t.columns.rows, Tile::columns);
  t.tiles = t.tiles_r * t.tiles_c * t.batch.count();
  const int bytes = Tile::bytes + table_bytes;
  const auto kernel = log_multiply<Where, Use, Tree, R, C>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory");
  const int64_t blocks = std::min<int64_t>(t.tiles, Tile::blocks * Limits(at.device).multiprocessors);
  kernel<<<static_cast<unsigned>(blocks), kLogThreads, bytes, at.stream>>>(t);
  check(cudaGetLastError(), "log_multiply");
}

template <typename Tile>
int64_t count_tiles(const LogTiledProduct& t) {
  return ceil_div(t.rows.rows, Tile::rows) * ceil_div(t.columns.rows, Tile::columns) * t.batch.count();
}

// One output a thread where the device has room for all at once; small tiles where large ones would leave
// multiprocessors idle, or a fifth of their outputs outside. Trees hold their levels, and fewer outputs.
template <LogSteps Where, LogUse Use, bool Tree>
void launch(const LogTiledProduct& t, int table_bytes, const Limits& limits, const Launch& at) {
  using One = LogTile<1, 1>;
  using Small = LogTile<2, 2>;
  using Large = LogTile<8, 4>;
  const int64_t small = count_tiles<Small>(t) * Small::rows * Small::columns;
  const int64_t tiles = count_tiles<Large>(t), large = tiles * Large::rows * Large::columns;
  if constexpr (Use != LogUse::counts)
    if (count_tiles<One>(t) <= One::blocks * limits.multiprocessors)
      return launch<Where, Use, Tree, 1, 1>(t, table_bytes, at);
  if constexpr (!Tree)
    if (tiles >= limits.multiprocessors && 4 * large <= 5 * small)
      return launch<Where, Use, false, 8, 4>(t, table_bytes, at);
  launch<Where, Use, Tree, 2, 2>(t, table_bytes, at);
}

// By what is asked for.
template <LogSteps Where>
void launch_any(const LogTiledProduct& t, LogOrder order, bool plain, int table_bytes, const Limits& limits,
                const Launch& at) {
  const bool tree = order == LogOrder::tree;
  if (t.counters)
    tree ? launch<Where, LogUse::counts, true>(t, table_bytes, limits, at)
         : launch<Where, LogUse::counts, false>(t, table_bytes, limits, at);
  else if (tree)
    launch<Where, LogUse::results, true>(t, table_bytes, limits, at);
  else
    plain ? launch<Where, LogUse::plain, false>(t, table_bytes, limits, at)
          : launch<Where, LogUse::results, false>(t, table_bytes, limits, at);
}

}  // namespace

LogEngine::LogEngine(const LogDatapath& datapath) : datapath_(datapath) {
  validate(datapath);
  const LogTables tables = log_tables(datapath);
  tables_ = log_steps(tables);
  steps_ = static_cast<int>(tables_.size());
  const auto fits = [](const std::vector<int64_t>& t) {
    return std::all_of(t.begin(), t.end(), [](int64_t n) { return n <= INT16_MAX; });
  };
  short_steps_ = datapath.acc_bits <= 16 && fits(tables.plus) && fits(tables.minus);
  const std::vector<int32_t> mantissas = log_mantissas(datapath);
  tables_.insert(tables_.end(), mantissas.begin(), mantissas.end());
}

void LogEngine::run(const Product& p, const int32_t* tables, bool accumulators, Counters* counters,
                    const Launch& at) const {
  if (p.empty()) return;
  check_sizes(p);
  const Limits limits(at.device);
  const bool exchanged = p.left.rows > p.right.rows;  // rows are grouped in eights, columns in more
  LogTiledProduct t = {.rows = exchanged ? p.right : p.left,
                       .columns = exchanged ? p.left : p.right,
                       .batch = exchanged ? p.batch.exchanged() : p.batch,
                       .output = p.output,
                       .k = p.k,
                       .accumulators = accumulators,
                       .range = LogRange(datapath_),
                       .operands = LogOperands(datapath_),
                       .values = LogValues(datapath_),
                       .vector_size = datapath_.vector_size,
                       .steps = tables,
                       .mantissas = tables + steps_,
                       .last = steps_ - 1,
                       .table_shift = 0,
                       .tiles_r = 0,
                       .tiles_c = 0,
                       .tiles = 0,
                       .counters = counters};
  const int words = 4 * steps_, halves = (2 * steps_ + 15) & ~15;
  const int room = limits.shared_bytes - LogTile<8, 4>::bytes;  // the most
  while (t.table_shift < kMostRepeats && words << (t.table_shift + 1) <= kRepeatedBytes) ++t.table_shift;
  const bool plain = !counters && t.range.flush && log_products_fit(datapath_);
  if (plain && datapath_.order == LogOrder::sequential && short_steps_ && t.table_shift == 0 && halves <= room)
    launch<LogSteps::halves, LogUse::plain, false>(t, halves, limits, at);
  else if (words << t.table_shift <= room)
    launch_any<LogSteps::words>(t, datapath_.order, plain, words << t.table_shift, limits, at);
  else
    launch_any<LogSteps::global>(t, datapath_.order, plain, 0, limits, at);
  if (counters) enqueue_lane_counts(p, datapath_.format, 0, datapath_.vector_size, counters, limits, at);
}

}  // namespace lns::cuda
