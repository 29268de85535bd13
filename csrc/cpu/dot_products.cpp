// Blocking, path choice and threads for the dot-product engine. A task is a block of rows of the longer operand
// against a panel of the other; it walks K once, one datapath vector at a time, with its accumulators in scratch.
#include "cpu/dot_products.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/lane_buffer.h"
#include "cpu/lane_counter.h"
#include "cpu/log_paths.h"
#include "cpu/parallel.h"
#include "cpu/paths.h"
#include "cpu/tables.h"

namespace lns::cpu {

namespace {

// ---- The measured rules: which path a product takes, and how it is cut into tasks.

// At most so many rows and 16-column groups are a task, which walks K with their accumulators in scratch. Each row
// path's table for 16 columns is used by every row of a block, so blocks are long. Register look-ups have nothing to
// build, so blocks are short and wide: the rows' lanes are made once for all columns, and 256 KB of sums stay in L2.
struct Blocking {
  int64_t rows, groups;
};
Blocking blocking(Path path) {
  switch (path) {
    case Path::permute8:
    case Path::permute16:
      return {.rows = 256, .groups = 16};
    case Path::log_registers:
    case Path::log_lookup:  // words of a block's lanes stay in cache
      return {.rows = 128, .groups = 8};
    default:
      return {.rows = kTileRows, .groups = 8};
  }
}

// Blocks are cut shorter for the threads' sake, but not below this.
constexpr int64_t kLeastRows = 16;

// A thread is worth waking for this many products.
constexpr int64_t kThreadProducts = int64_t{1} << 15;

// Building a row table costs as much as this many rows of use, and a look-up this many row additions.
constexpr int64_t kBuildRows = 460;
constexpr int64_t kLookupCost = 6;

// Costs of having `columns` on the table side and `rows` on the other, in row additions per lane.
int64_t rows_cost(int64_t rows, int64_t columns) {
  return ceil_div(columns, kColumns) * (rows + kBuildRows * ceil_div(rows, blocking(Path::rows).rows));
}
int64_t lookup_cost(int64_t rows, int64_t columns) { return ceil_div(columns, kColumns) * rows * kLookupCost; }

}  // namespace

const char* path_name(Path path) {
  switch (path) {
    case Path::permute8:
      return "permute8";
    case Path::permute16:
      return "permute16";
    case Path::rows:
      return "rows";
    case Path::row_planes:
      return "row_planes";
    case Path::lookup32:
      return "lookup32";
    case Path::lookup64:
      return "lookup64";
    case Path::log_registers:
      return "log_registers";
    case Path::log_lookup:
      return "log_lookup";
    default:
      return "bins";
  }
}

namespace {
std::array<std::atomic<int64_t>, kPaths> runs{};
}

std::array<int64_t, kPaths> path_runs() {
  std::array<int64_t, kPaths> counts;
  std::copy(runs.begin(), runs.end(), counts.begin());
  return counts;
}

Engine::Engine(const Datapath& datapath) : datapath_(datapath) {
  validate(datapath);
  tables_ = std::make_unique<const Tables>(datapath);
}

Engine::~Engine() = default;

Path Engine::path(int64_t left_rows, int64_t right_rows, bool shifted) const {
  const Tables& t = *tables_;
  if (datapath_.bin_bits != 0) return Path::bins;
  const int64_t longer = std::max(left_rows, right_rows), shorter = std::min(left_rows, right_rows);
  const auto permutes = [](const auto* kernels, const auto& tables) {
    return kernels && tables && kernels->takes(*tables);
  };
  if (permutes(kernels().permute8, t.permute8) && (!t.rows || longer <= kernels().permute8->most_rows))
    return Path::permute8;
  const bool enough_rows = rows_cost(longer, shorter) <= lookup_cost(longer, shorter);
  if (t.rows && enough_rows) return t.narrow && !shifted ? Path::rows : Path::row_planes;
  if (permutes(kernels().permute16, t.permute16)) return Path::permute16;
  return t.narrow ? Path::lookup32 : Path::lookup64;
}

namespace {

// One product of the batch.
struct Instance {
  std::unique_ptr<const Reader> left, right;
  std::unique_ptr<const Reader> left_shifts, right_shifts;  // null: none
  const float *left_scale, *right_scale;
  void* output;

  Instance(const Product& p, const Offsets& o)
      : left(new_reader(p.left.operand, o.left)),
        right(new_reader(p.right.operand, o.right)),
        left_shifts(shift_reader(p.left, o.left_shift)),
        right_shifts(shift_reader(p.right, o.right_shift)),
        left_scale(p.left.scale + o.left_scale),
        right_scale(p.right.scale + o.right_scale),
        output(static_cast<char*>(p.output) + o.output * static_cast<int64_t>(sizeof(float))) {}

 private:
  static std::unique_ptr<const Reader> shift_reader(const Side& side, int64_t offset) {
    return side.shifts.codes.data == nullptr ? nullptr : new_reader(side.shifts, offset);
  }
};

// How a batch of products is cut into tasks: blocks of rows of the longer side, panels of the shorter.
struct Plan {
  const Product& product;
  int vector_size;  // lanes that a worker takes at once
  double unit;      // of accumulators
  bool accumulators, count, left_is_long;
  std::vector<Instance> batch;
  int64_t rows, columns, block, blocks, panel, panels;

  Plan(const Product& product, int vector_size, double unit, const Blocking& most, bool accumulators, bool count)
      : product(product),
        vector_size(vector_size),
        unit(unit),
        accumulators(accumulators),
        count(count),
        left_is_long(product.left.rows >= product.right.rows) {
    const int64_t products = product.batch.count();
    const int64_t work = product.left.rows * product.right.rows * product.k * products;
    const int64_t threads = std::clamp<int64_t>(ceil_div(work, kThreadProducts), 1, num_threads());
    for (int64_t i = 0; i < products; ++i) batch.emplace_back(product, product.batch.at(i));
    rows = std::max(product.left.rows, product.right.rows);
    columns = std::min(product.left.rows, product.right.rows);
    // Enough tasks for every thread, of equal size: first by panels, as what is made of a block's rows or for its
    // tables is shared by the panel's columns, then by blocks.
    const int64_t groups = ceil_div(columns, kColumns);
    panels = std::max(ceil_div(groups, most.groups),
                      std::min(groups, ceil_div(threads, products * ceil_div(rows, most.rows))));
    panel = kColumns * ceil_div(groups, panels);
    panels = ceil_div(columns, panel);
    blocks = ceil_div(rows, most.rows);
    const int64_t most_blocks = std::min(blocks + threads, ceil_div(rows, kLeastRows));
    while (blocks * panels * products % threads != 0 && blocks < most_blocks) ++blocks;
    block = ceil_div(rows, blocks);
    blocks = ceil_div(rows, block);
  }
  int64_t tasks() const { return static_cast<int64_t>(batch.size()) * panels * blocks; }
  int64_t groups() const { return ceil_div(std::min(columns, panel), kColumns); }
};

// A side of one product: what the batch shares, and its own codes and scales.
struct TaskSide {
  const Side& side;
  const Reader& reader;
  const Reader* shifts;
  const float* scale;
};

// A block of one product.
struct Task {
  TaskSide long_side, short_side;
  void* output;
  int64_t row0, rows, column0, columns;

  Task(const Plan& plan, int64_t i) : Task(plan, plan.batch[i / (plan.panels * plan.blocks)], i) {}

 private:
  Task(const Plan& plan, const Instance& p, int64_t i)
      : long_side(side(plan, p, plan.left_is_long)),
        short_side(side(plan, p, !plan.left_is_long)),
        output(p.output),
        row0(i % plan.blocks * plan.block),
        rows(std::min(plan.block, plan.rows - row0)),
        column0(i / plan.blocks % plan.panels * plan.panel),
        columns(std::min(plan.panel, plan.columns - column0)) {}
  static TaskSide side(const Plan& plan, const Instance& p, bool left) {
    if (left)
      return {.side = plan.product.left, .reader = *p.left, .shifts = p.left_shifts.get(), .scale = p.left_scale};
    return {.side = plan.product.right, .reader = *p.right, .shifts = p.right_shifts.get(), .scale = p.right_scale};
  }
};

// One thread's scratch, and the walk of a task along K.
template <typename Path>
class Worker {
 public:
  using Lane = typename Path::Lane;

  template <typename... Args>
  explicit Worker(const Plan& plan, const Args&... args)
      : plan_(plan),
        path_(args...),
        vector_size_(plan.vector_size),
        rows_(kTileRows, vector_size_),
        columns_(plan.groups() * kColumns, vector_size_),
        active_(ceil_div(vector_size_, Path::kDepth)),
        row_shifts_(kTileRows),
        column_bytes_(plan.groups() * kColumns),
        column_shifts_(plan.groups() * kColumns),
        row_at_(plan.block),
        row_factor_(plan.block),
        column_at_(plan.groups() * kColumns),
        column_factor_(plan.groups() * kColumns) {}

  int64_t overflows = 0;

  void run(const Task& t) {
    const int64_t groups = ceil_div(t.columns, kColumns), k = plan_.product.k;
    const bool by_rows = t.long_side.side.operand.rows_are_contiguous();
    const TileStrides strides =
        by_rows ? TileStrides{.row = 1, .depth = kTileRows} : TileStrides{.row = rows_.pitch(), .depth = 1};
    path_.start(t.rows, groups);
    rows_.start(t.long_side.reader, t.row0, t.rows, t.rows, k, strides);
    columns_.start(t.short_side.reader, t.column0, t.columns, groups * kColumns, k,
                   {.row = columns_.pitch(), .depth = 1});
    for (int64_t k0 = 0; k0 < k; k0 += vector_size_) {
      const int depth = static_cast<int>(std::min<int64_t>(vector_size_, k - k0));
      const Tile<Lane> tile = {
          .lanes = rows_.at(k0), .strides = strides, .rows = t.rows, .depth = depth, .active = active_.data()};
      const Lane* lanes = columns_.at(k0);
      for (int d = 0; d < depth; d += Path::kDepth)
        active_[d / Path::kDepth] = any_code(tile, d, std::min(Path::kDepth, depth - d));
      path_.see(tile);
      const int64_t block = plan_.product.block;
      if (block > 0 && k0 % block == 0) read_shifts(t, k0 / block, groups);
      for (int64_t g = 0; g < groups; ++g) {
        VectorShifts shifts;
        if (block > 0) shifts = {.rows = row_shifts_.get(), .columns = column_shifts_.get() + g * kColumns};
        path_.add(tile, {.lanes = lanes + g * kColumns * columns_.pitch(), .pitch = columns_.pitch(), .index = g},
                  shifts, plan_.count ? &overflows : nullptr);
      }
    }
    place(t.long_side, t.row0, t.rows, plan_.unit, row_at_.get(), row_factor_.get());
    place(t.short_side, t.column0, t.columns, 1.0, column_at_.get(), column_factor_.get());
    for (int64_t g = 0; g < groups; ++g)
      if (plan_.accumulators)
        write(t, g, static_cast<int32_t*>(t.output));
      else
        write(t, g, static_cast<float*>(t.output));
  }

 private:
  // Does a tile hold anything but zero codes at depths d0 .. d0 + depth - 1? Mostly the first lane says so; taps that
  // see nothing (padding, strided gradients) are zero throughout and need no work.
  static bool any_code(const Tile<Lane>& tile, int d0, int depth) {
    const bool by_rows = tile.rows_are_contiguous();
    const int64_t run = by_rows ? tile.rows : depth, runs = by_rows ? depth : tile.rows;
    const int64_t pitch = by_rows ? tile.strides.depth : tile.strides.row;
    const Lane* lanes = tile.lanes + d0 * tile.strides.depth;
    for (int64_t i = 0; i < runs; ++i) {
      for (int64_t j = 0; j < run; j += 64) {  // short runs of which all are read, so that they are read as vectors
        Lane any = 0;
        for (int64_t l = j; l < std::min(run, j + 64); ++l) any |= lanes[i * pitch + l];
        if (any != 0) return true;
      }
    }
    return false;
  }
  // Of one block of K.
  void read_shifts(const Task& t, int64_t block, int64_t groups) {
    const auto read = [&](const TaskSide& side, int64_t first, int64_t rows, uint8_t* to) {
      if (side.shifts)
        side.shifts->fill(to, {.row = 1, .depth = kTileRows}, first, rows, block, 1);
      else
        std::fill_n(to, rows, uint8_t{0});
    };
    read(t.long_side, t.row0, t.rows, row_shifts_.get());
    std::fill_n(column_bytes_.get(), groups * kColumns, uint8_t{0});
    read(t.short_side, t.column0, t.columns, column_bytes_.get());
    std::copy_n(column_bytes_.get(), groups * kColumns, column_shifts_.get());
  }

  // Where each row of a side goes in the output, and what its accumulators are multiplied by.
  static void place(const TaskSide& t, int64_t first, int64_t n, double unit, int64_t* at, double* factor) {
    t.side.output.walk(first, n, [&](int64_t offset) { *at++ = offset; });
    t.side.scale_axis.walk(first, n,
                           [&](int64_t offset) { *factor++ = unit * scale_factor(float_bits(t.scale[offset])); });
  }

  static bool contiguous(const int64_t* at, int64_t n) {
    bool all = true;
    for (int64_t i = 1; i < n; ++i) all &= at[i] == at[0] + i;
    return all;
  }

  // Writes a group of columns in squares of 16 x 16, whichever side is contiguous in the output.
  template <typename T>
  void write(const Task& t, int64_t group, T* output) {
    const Kernels& kernel = kernels();
    const int64_t c0 = group * kColumns, columns = std::min<int64_t>(kColumns, t.columns - c0);
    const int64_t* column_at = column_at_.get() + c0;
    const bool columns_are_contiguous = contiguous(column_at, columns);
    const int32_t* acc = path_.accumulators(group, t.rows);
    for (int64_t r0 = 0; r0 < t.rows; r0 += kColumns, acc += kColumns * kColumns) {
      const int64_t rows = std::min<int64_t>(kColumns, t.rows - r0);
      const int64_t* row_at = row_at_.get() + r0;
      alignas(64) T square[kColumns * kColumns];
      if constexpr (std::is_same_v<T, float> && requires { &Path::read_out; })
        path_.read_out(acc, row_factor_.get() + r0, column_factor_.get() + c0, static_cast<int>(rows), square);
      else if constexpr (std::is_same_v<T, float>)
        kernel.read_out(acc, row_factor_.get() + r0, column_factor_.get() + c0, static_cast<int>(rows), square);
      else
        std::copy_n(acc, rows * kColumns, square);
      if (columns_are_contiguous) {
        for (int64_t r = 0; r < rows; ++r)
          std::copy_n(square + r * kColumns, columns, output + row_at[r] + column_at[0]);
        continue;
      }
      kernel.transpose_square(reinterpret_cast<int32_t*>(square));
      const bool rows_are_contiguous = contiguous(row_at, rows);
      for (int64_t c = 0; c < columns; ++c) {
        T* to = output + column_at[c];
        const T* from = square + c * kColumns;
        if (rows_are_contiguous)
          std::copy_n(from, rows, to + row_at[0]);
        else
          for (int64_t r = 0; r < rows; ++r) to[row_at[r]] = from[r];
      }
    }
  }

  const Plan& plan_;
  Path path_;
  int vector_size_;
  LaneBuffer<Lane> rows_, columns_;
  std::vector<char> active_;  // which parts of a vector hold any code
  Scratch<uint8_t> row_shifts_, column_bytes_;
  Scratch<int32_t> column_shifts_;
  // Of each row and column: offset in the output, and factor of the accumulators.
  Scratch<int64_t> row_at_;
  Scratch<double> row_factor_;
  Scratch<int64_t> column_at_;
  Scratch<double> column_factor_;
};

// Runs all tasks of a plan with one worker a thread; returns how often an accumulator overflowed.
template <typename Path, typename... Args>
int64_t run_tasks(const Plan& plan, const Args&... args) {
  std::atomic<int64_t> overflows{0};
  parallel_for(plan.tasks(), 1, [&](int64_t begin, int64_t end) {
    Worker<Path> worker(plan, args...);
    for (int64_t i = begin; i < end; ++i) worker.run(Task(plan, i));
    overflows += worker.overflows;
  });
  return overflows;
}

// Vectors, and what needs no accumulation.
void count_lanes(const Plan& plan, int vector_size, const Format& format, int64_t first_visible, Counters& counters) {
  const Product& p = plan.product;
  counters.vectors += static_cast<int64_t>(plan.batch.size()) * p.left.rows * p.right.rows * ceil_div(p.k, vector_size);
  for (const Instance& i : plan.batch) LaneCounter(p, format, first_visible, *i.left, *i.right).add_to(counters);
}

}  // namespace

void Engine::run(const Product& product, bool accumulators, Counters* counters) const {
  if (product.empty()) return;
  const bool shifted = product.block > 0;
  const Path path = this->path(product.left.rows, product.right.rows, shifted);
  ++runs[static_cast<int>(path)];
  const Plan plan(product, datapath_.vector_size, unit_factor(datapath_), blocking(path), accumulators,
                  counters != nullptr);
  const Kernels& kernel = kernels();
  const Tables& t = *tables_;
  int64_t overflows = 0;
  switch (path) {
    case Path::permute8:
      overflows = run_tasks<PermutePath<uint8_t>>(plan, *kernel.permute8, datapath_, *t.permute8);
      break;
    case Path::permute16:
      overflows = run_tasks<PermutePath<int16_t>>(plan, *kernel.permute16, datapath_, *t.permute16);
      break;
    case Path::rows:
      overflows = run_tasks<RowPath<NarrowSums>>(plan, kernel, datapath_, t.low, nullptr, t.plane_shift);
      break;
    case Path::row_planes: {
      const SignedProducts* high = t.one_plane ? nullptr : &t.high;
      if (shifted)
        overflows = run_tasks<RowPath<ShiftedSums>>(plan, kernel, datapath_, t.low, high, t.plane_shift,
                                                    t.one_plane && t.apart32);
      else
        overflows = run_tasks<RowPath<PlaneSums>>(plan, kernel, datapath_, t.low, high, t.plane_shift);
      break;
    }
    case Path::lookup32:
      overflows = run_tasks<LookupPath<int32_t>>(plan, kernel, datapath_, t.lookup32.data(), t.zero_start, shifted);
      break;
    case Path::lookup64:
      overflows = run_tasks<LookupPath<int64_t>>(plan, kernel, datapath_, t.lookup64.data(), t.zero_start, shifted);
      break;
    case Path::bins:
      overflows = run_tasks<BinPath>(plan, datapath_, t.lanes, t.constants);
      break;
    case Path::log_registers:  // these are LogEngine's
    case Path::log_lookup:
      break;
  }
  if (counters) {
    counters->saturations += overflows;
    count_lanes(plan, datapath_.vector_size, datapath_.format, datapath_.first_visible_product(), *counters);
  }
}

LogEngine::LogEngine(const LogDatapath& datapath) : datapath_(datapath) {
  validate(datapath);
  tables_ = std::make_unique<const LogPathTables>(datapath);
}

LogEngine::~LogEngine() = default;

Path LogEngine::path(int64_t, int64_t) const {
  return kernels().log_registers && tables_->registers ? Path::log_registers : Path::log_lookup;
}

void LogEngine::run(const Product& product, bool accumulators, Counters* counters) const {
  if (product.empty()) return;
  const Path path = counters ? Path::log_lookup : this->path(product.left.rows, product.right.rows);
  ++runs[static_cast<int>(path)];
  // Vectors matter to trees only; else a worker takes what keeps its columns in cache.
  constexpr int kLanes = 64;
  const int lanes = datapath_.order == LogOrder::tree ? datapath_.vector_size : kLanes;
  const Plan plan(product, lanes, 1.0, blocking(path), accumulators, counters != nullptr);
  if (path == Path::log_registers) {
    run_tasks<LogRegisterPath>(plan, kernels(), *tables_, lanes);
    return;
  }
  LogTotals totals;
  run_tasks<LogLookupPath>(plan, kernels(), *tables_, lanes, counters ? &totals : nullptr);
  if (!counters) return;
  counters->saturations += totals.saturated;
  counters->vanished += totals.flushed;
  counters->cancelled += totals.cancelled;
  count_lanes(plan, datapath_.vector_size, datapath_.format, 0, *counters);
}

}  // namespace lns::cpu
