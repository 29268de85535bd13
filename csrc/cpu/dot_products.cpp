// Blocking, path choice and threads for the dot-product engine. A task is a block of rows of the longer operand
// against a panel of the other; it walks K once, one datapath vector at a time, with its accumulators in scratch.
#include "cpu/dot_products.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "cpu/kernels.h"
#include "cpu/lane_counter.h"
#include "cpu/parallel.h"
#include "cpu/paths.h"
#include "cpu/scratch.h"

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
      return {256, 16};
    default:
      return {kTileRows, 8};
  }
}

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
    default:
      return "lookup64";
  }
}

struct Engine::Tables {
  bool narrow;      // the accumulator state fits 32 bits
  bool planes;      // two 32-bit sums hold a vector's sum
  int plane_shift;  // its value is high * 2^plane_shift + low
  bool one_plane;   // high is always 0
  int zero_start;   // where the look-up tables continue with zeros: the exponent given to zero codes
  std::optional<PermuteTables<uint8_t>> permute8;
  std::optional<PermuteTables<int16_t>> permute16;
  SignedProducts low, high;  // the row path's products, in planes unless narrow
  std::vector<int32_t> lookup32;
  std::vector<int64_t> lookup64;
};

namespace {

int log2_ceil(int64_t n) {
  int bits = 0;
  while ((int64_t{1} << bits) < n) ++bits;
  return bits;
}

void set_product(SignedProducts& t, size_t p, int64_t value) {
  t.positive[p] = static_cast<int32_t>(value);
  t.negative[p] = -t.positive[p];
}

}  // namespace

Engine::Engine(const Datapath& datapath) : datapath_(datapath) {
  validate(datapath);
  auto t = std::make_unique<Tables>();
  const std::vector<int64_t> product = product_table(datapath);
  const bool short_codes = datapath.format.bits <= 8;
  // Without the accumulator, 31 bits hold the sum of a vector of values below 2^plane_shift.
  t->plane_shift = 31 - log2_ceil(datapath.vector_size);
  const int64_t largest = *std::max_element(product.begin(), product.end());
  t->one_plane = largest >> t->plane_shift == 0;
  t->narrow = fits_int32(datapath, product);
  t->planes = !t->narrow && short_codes && t->plane_shift > 0 && largest >> t->plane_shift >> t->plane_shift == 0;
  t->permute8 = permute_tables<uint8_t>(datapath, product);
  t->permute16 = permute_tables<int16_t>(datapath, product);
  if (short_codes && (t->narrow || t->planes))
    for (size_t p = 0; p < product.size(); ++p) {
      const int64_t high = t->narrow ? 0 : product[p] >> t->plane_shift;
      set_product(t->low, p, product[p] - (high << t->plane_shift));
      set_product(t->high, p, high);
    }
  // Look-ups of a zero code end up behind the products, where the table is zero.
  t->zero_start = static_cast<int>(product.size());
  const size_t entries = product.size() + datapath.format.e_max() + 1;
  if (t->narrow) {
    t->lookup32.assign(product.begin(), product.end());
    t->lookup32.resize(entries, 0);
  } else {
    t->lookup64 = product;
    t->lookup64.resize(entries, 0);
  }
  tables_ = std::move(t);
}

Engine::~Engine() = default;

Path Engine::path(int64_t left_rows, int64_t right_rows) const {
  const Tables& t = *tables_;
  if (kernels().permute8 && t.permute8) return Path::permute8;
  const int64_t longer = std::max(left_rows, right_rows), shorter = std::min(left_rows, right_rows);
  const bool enough_rows = rows_cost(longer, shorter) <= lookup_cost(longer, shorter);
  if (datapath_.format.bits <= 8 && enough_rows && (t.narrow || t.planes)) return t.narrow ? Path::rows : Path::row_planes;
  if (kernels().permute16 && t.permute16) return Path::permute16;
  return t.narrow ? Path::lookup32 : Path::lookup64;
}

namespace {

// How a batch of equal products is cut into tasks: blocks of rows of the longer side, panels of the shorter.
struct Plan {
  const std::vector<Product>& batch;
  const Datapath& datapath;
  bool accumulators, count, left_is_long;
  int64_t rows, columns, block, blocks, panel, panels;

  Plan(const std::vector<Product>& batch, const Datapath& datapath, const Blocking& most, bool accumulators, bool count)
      : batch(batch), datapath(datapath), accumulators(accumulators), count(count) {
    const int64_t left = batch.front().left.rows, right = batch.front().right.rows;
    left_is_long = left >= right;
    rows = std::max(left, right);
    columns = std::min(left, right);
    // Enough tasks for every thread, of equal size: first by panels, as what is made of a block's rows or for its
    // tables is shared by the panel's columns, then by blocks.
    const int64_t products = static_cast<int64_t>(batch.size()), threads = num_threads();
    const int64_t groups = ceil_div(columns, kColumns);
    panels = std::max(ceil_div(groups, most.groups), std::min(groups, ceil_div(threads, products * ceil_div(rows, most.rows))));
    panel = kColumns * ceil_div(groups, panels);
    panels = ceil_div(columns, panel);
    blocks = ceil_div(rows, most.rows);
    while (blocks * panels * products % threads != 0 && blocks < std::min(rows, threads)) ++blocks;
    block = ceil_div(rows, blocks);
    blocks = ceil_div(rows, block);
  }
  int64_t tasks() const { return static_cast<int64_t>(batch.size()) * panels * blocks; }
  int64_t groups() const { return ceil_div(std::min(columns, panel), kColumns); }
};

// A block of one product.
struct Task {
  const Product& product;
  const Side &long_side, &short_side;
  int64_t row0, rows, column0, columns;

  Task(const Plan& plan, int64_t i)
      : product(plan.batch[i / (plan.panels * plan.blocks)]),
        long_side(plan.left_is_long ? product.left : product.right),
        short_side(plan.left_is_long ? product.right : product.left),
        row0(i % plan.blocks * plan.block),
        rows(std::min(plan.block, plan.rows - row0)),
        column0(i / plan.blocks % plan.panels * plan.panel),
        columns(std::min(plan.panel, plan.columns - column0)) {}
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
        vector_size_(plan.datapath.vector_size),
        pitch_(round_up(vector_size_)),
        lanes_(kTileRows * pitch_),
        columns_(plan.groups() * kColumns * pitch_),
        active_(ceil_div(pitch_, Path::kDepth)),
        row_at_(plan.block),
        row_factor_(plan.block),
        column_factor_(plan.groups() * kColumns) {}

  int64_t overflows = 0;

  void run(const Task& t) {
    const int64_t groups = ceil_div(t.columns, kColumns), k = t.product.k;
    const Operand &rows = *t.long_side.operand, &columns = *t.short_side.operand;
    Tile<Lane> tile = {lanes_.get(), {pitch_, 1}, t.rows, 0, pitch_, active_.data()};
    if (rows.rows_are_contiguous()) tile.strides = {1, kTileRows};
    path_.start(t.rows, groups);
    // Missing columns of a partial group, and lanes past the last, are zero codes.
    std::fill_n(columns_.get() + t.columns * pitch_, (groups * kColumns - t.columns) * pitch_, Lane{0});
    for (int64_t k0 = 0; k0 < k; k0 += vector_size_) {
      tile.depth = static_cast<int>(std::min<int64_t>(vector_size_, k - k0));
      rows.fill(lanes_.get(), tile.strides, t.row0, t.rows, k0, tile.depth);
      columns.fill(columns_.get(), {pitch_, 1}, t.column0, t.columns, k0, tile.depth);
      if (k0 == 0 || tile.depth < vector_size_) {
        clear_past(lanes_.get(), tile.strides, t.rows, tile.depth);
        clear_past(columns_.get(), {pitch_, 1}, t.columns, tile.depth);
      }
      for (int d = 0; d < tile.depth; d += Path::kDepth)
        active_[d / Path::kDepth] = any_code(tile, d, std::min(Path::kDepth, tile.depth - d));
      path_.see(tile);
      for (int64_t g = 0; g < groups; ++g) {
        path_.add(tile, columns_.get() + g * kColumns * pitch_, g, plan_.count ? &overflows : nullptr);
      }
    }
    for (int64_t r = 0; r < t.rows; ++r) {
      row_at_.get()[r] = t.long_side.output(t.row0 + r);
      row_factor_.get()[r] = unit_factor(plan_.datapath.acc_lsb) * factor(t.long_side, t.row0 + r);
    }
    for (int64_t c = 0; c < groups * kColumns; ++c)
      column_factor_.get()[c] = c < t.columns ? factor(t.short_side, t.column0 + c) : 0.0;
    for (int64_t g = 0; g < groups; ++g)
      if (plan_.accumulators)
        write(t, g, static_cast<int32_t*>(t.product.output), [](int32_t acc, double) { return acc; });
      else
        write(t, g, static_cast<float*>(t.product.output), read_out);
  }

 private:
  static int round_up(int64_t depth) { return static_cast<int>(ceil_div(depth, 4) * 4); }
  static void clear_past(Lane* lanes, TileStrides strides, int64_t rows, int depth) {
    for (int d = depth; d < round_up(depth); ++d)
      for (int64_t r = 0; r < rows; ++r) lanes[r * strides.row + d * strides.depth] = 0;
  }
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
  static double factor(const Side& side, int64_t row) { return scale_factor(float_bits(side.scale[side.scale_axis(row)])); }

  // Writes a group of columns in squares of 16 x 16, whichever side is contiguous in the output.
  template <typename T, typename Convert>
  void write(const Task& t, int64_t group, T* output, Convert convert) {
    const int64_t c0 = group * kColumns, columns = std::min<int64_t>(kColumns, t.columns - c0);
    const int32_t* acc = path_.accumulators(group, t.rows);
    int64_t column_at[kColumns];
    for (int64_t c = 0; c < columns; ++c) column_at[c] = t.short_side.output(t.column0 + c0 + c);
    const bool contiguous = column_at[columns - 1] - column_at[0] == columns - 1;
    double column_factor[kColumns];
    std::copy_n(column_factor_.get() + c0, kColumns, column_factor);
    for (int64_t r0 = 0; r0 < t.rows; r0 += kColumns) {
      const int64_t rows = std::min<int64_t>(kColumns, t.rows - r0);
      T square[kColumns][kColumns];
      for (int64_t r = 0; r < rows; ++r, acc += kColumns) {
        const double row_factor = row_factor_.get()[r0 + r];
        for (int c = 0; c < kColumns; ++c) square[r][c] = convert(acc[c], row_factor * column_factor[c]);
        if (contiguous) std::copy_n(square[r], columns, output + row_at_.get()[r0 + r] + column_at[0]);
      }
      if (contiguous) continue;
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = 0; r < rows; ++r) output[column_at[c] + row_at_.get()[r0 + r]] = square[r][c];
    }
  }

  const Plan& plan_;
  Path path_;
  int vector_size_, pitch_;
  Scratch<Lane> lanes_, columns_;
  std::vector<char> active_;     // which parts of a vector hold any code
  Scratch<int64_t> row_at_;      // offset of each row in the output
  Scratch<double> row_factor_, column_factor_;  // what their accumulators are multiplied by
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

}  // namespace

void Engine::run(const std::vector<Product>& batch, bool accumulators, Counters* counters) const {
  if (batch.empty() || batch.front().left.rows == 0 || batch.front().right.rows == 0) return;
  const Path path = this->path(batch.front().left.rows, batch.front().right.rows);
  const Plan plan(batch, datapath_, blocking(path), accumulators, counters != nullptr);
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
      overflows = run_tasks<RowPath<NarrowSums>>(plan, kernel, datapath_, t.low, nullptr, 0);
      break;
    case Path::row_planes:
      overflows = run_tasks<RowPath<PlaneSums>>(plan, kernel, datapath_, t.low, t.one_plane ? nullptr : &t.high, t.plane_shift);
      break;
    case Path::lookup32:
      overflows = run_tasks<LookupPath<int32_t>>(plan, kernel, datapath_, t.lookup32.data(), t.zero_start);
      break;
    case Path::lookup64:
      overflows = run_tasks<LookupPath<int64_t>>(plan, kernel, datapath_, t.lookup64.data(), t.zero_start);
      break;
  }
  if (counters) {
    counters->saturations += overflows;
    for (const Product& p : batch) {
      counters->vectors += p.left.rows * p.right.rows * ceil_div(p.k, datapath_.vector_size);
      LaneCounter(p, datapath_).add_to(*counters);
    }
  }
}

}  // namespace lns::cpu
