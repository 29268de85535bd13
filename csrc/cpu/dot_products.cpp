// Blocking, path choice and threads for the dot-product engine. A task is a block of rows of the longer operand
// against a panel of the other; it walks K once, one datapath vector at a time, with its accumulators in scratch.
#include "cpu/dot_products.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "cpu/kernels.h"
#include "cpu/lane_counter.h"
#include "cpu/parallel.h"
#include "cpu/paths.h"
#include "cpu/scratch.h"

namespace lns::cpu {

namespace {

// Rows of a task's block, and 16-column groups of its panel: the block's lanes stay in L1/L2 while the panel's
// groups pass over them, and a table built for 16 columns is used `kBlockRows` times.
constexpr int64_t kBlockRows = kTileRows;
constexpr int64_t kPanelGroups = 8;
// Building a row table costs as much as this many rows of use, and a look-up this many row additions (measured).
constexpr int64_t kBuildRows = 460;
constexpr int64_t kLookupCost = 6;

// Costs of having `columns` on the table side and `rows` on the other, in row additions per lane.
int64_t rows_cost(int64_t rows, int64_t columns) {
  return ceil_div(columns, kColumns) * (rows + kBuildRows * ceil_div(rows, kBlockRows));
}
int64_t lookup_cost(int64_t rows, int64_t columns) { return ceil_div(columns, kColumns) * rows * kLookupCost; }

}  // namespace

const char* path_name(Path path) {
  switch (path) {
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
  const int64_t longer = std::max(left_rows, right_rows), shorter = std::min(left_rows, right_rows);
  const bool enough_rows = rows_cost(longer, shorter) <= lookup_cost(longer, shorter);
  if (datapath_.format.bits <= 8 && enough_rows && (t.narrow || t.planes)) return t.narrow ? Path::rows : Path::row_planes;
  return t.narrow ? Path::lookup32 : Path::lookup64;
}

namespace {

// How a batch of equal products is cut into tasks: blocks of rows of the longer side, panels of the shorter.
struct Plan {
  const std::vector<Product>& batch;
  const Datapath& datapath;
  bool accumulators, count, left_is_long;
  int64_t rows, columns, block, blocks, panel, panels;

  Plan(const std::vector<Product>& batch, const Datapath& datapath, bool accumulators, bool count)
      : batch(batch), datapath(datapath), accumulators(accumulators), count(count) {
    const int64_t left = batch.front().left.rows, right = batch.front().right.rows;
    left_is_long = left >= right;
    rows = std::max(left, right);
    columns = std::min(left, right);
    // Enough tasks for every thread: first by panels, as a table's cost is shared by all rows of a block, then by
    // blocks of equal size.
    const int64_t groups = ceil_div(columns, kColumns), products = static_cast<int64_t>(batch.size());
    panel = kColumns * std::clamp<int64_t>(groups * products / num_threads(), 1, kPanelGroups);
    panels = ceil_div(columns, panel);
    block = ceil_div(rows, std::max(ceil_div(rows, kBlockRows), ceil_div(num_threads(), panels * products)));
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

  Worker(const Plan& plan, Path path)
      : plan_(plan),
        path_(std::move(path)),
        vector_size_(plan.datapath.vector_size),
        lanes_(kTileRows * vector_size_),
        columns_(plan.groups() * kColumns * vector_size_),
        active_(ceil_div(vector_size_, Path::kDepth)),
        row_at_(plan.block),
        row_factor_(plan.block) {}

  int64_t overflows = 0;

  void run(const Task& t) {
    const int64_t groups = ceil_div(t.columns, kColumns), k = t.product.k;
    const Operand &rows = *t.long_side.operand, &columns = *t.short_side.operand;
    const TileStrides tile = rows.rows_are_contiguous() ? TileStrides{1, kTileRows} : TileStrides{vector_size_, 1};
    path_.start(t.rows, groups);
    // A partial group's missing columns are zero codes.
    std::fill_n(columns_.get() + t.columns * vector_size_, (groups * kColumns - t.columns) * vector_size_, Lane{0});
    for (int64_t k0 = 0; k0 < k; k0 += vector_size_) {
      const int depth = static_cast<int>(std::min<int64_t>(vector_size_, k - k0));
      rows.fill(lanes_.get(), tile, t.row0, t.rows, k0, depth);
      if (tile.row == 1)
        path_.see(lanes_.get(), t.rows, depth, kTileRows);
      else
        path_.see(lanes_.get(), depth, t.rows, vector_size_);
      for (int d = 0; d < depth; d += Path::kDepth)
        active_[d / Path::kDepth] = any_code(tile, t.rows, d, std::min(Path::kDepth, depth - d));
      columns.fill(columns_.get(), {vector_size_, 1}, t.column0, t.columns, k0, depth);
      for (int64_t g = 0; g < groups; ++g) {
        for (int d = 0; d < depth; d += Path::kDepth)
          if (active_[d / Path::kDepth])
            path_.add(columns_.get() + g * kColumns * vector_size_ + d, vector_size_, lanes_.get() + d * tile.depth, tile,
                      t.rows, std::min(Path::kDepth, depth - d), g);
        path_.close(t.rows, g, plan_.count ? &overflows : nullptr);
      }
    }
    for (int64_t r = 0; r < t.rows; ++r) {
      row_at_.get()[r] = t.long_side.output(t.row0 + r);
      row_factor_.get()[r] = unit_factor(plan_.datapath.acc_lsb) * factor(t.long_side, t.row0 + r);
    }
    if (plan_.accumulators)
      write(t, static_cast<int32_t*>(t.product.output), [](int32_t acc, double) { return acc; });
    else
      write(t, static_cast<float*>(t.product.output), read_out);
  }

 private:
  // Does a tile hold anything but zero codes at depths d0 .. d0 + depth - 1? Mostly the first lane says so; taps that
  // see nothing (padding, strided gradients) are zero throughout and need no tables.
  bool any_code(TileStrides tile, int64_t rows, int d0, int depth) const {
    for (int d = d0; d < d0 + depth; ++d)
      for (int64_t r = 0; r < rows; ++r)
        if (lanes_.get()[r * tile.row + d * tile.depth] != 0) return true;
    return false;
  }
  static double factor(const Side& side, int64_t row) { return scale_factor(float_bits(side.scale[side.scale_axis(row)])); }

  // Writes a block in squares of 16 x 16, whichever side is contiguous in the output.
  template <typename T, typename Convert>
  void write(const Task& t, T* output, Convert convert) const {
    for (int64_t c0 = 0; c0 < t.columns; c0 += kColumns) {
      for (int64_t r0 = 0; r0 < t.rows; r0 += kColumns) {
        const int64_t r1 = std::min<int64_t>(r0 + kColumns, t.rows);
        for (int64_t c = c0; c < std::min<int64_t>(c0 + kColumns, t.columns); ++c) {
          T* to = output + t.short_side.output(t.column0 + c);
          const double column_factor = factor(t.short_side, t.column0 + c);
          for (int64_t r = r0; r < r1; ++r)
            to[row_at_.get()[r]] = convert(path_.read(c0 * t.rows + r * kColumns + c - c0), row_factor_.get()[r] * column_factor);
        }
      }
    }
  }

  const Plan& plan_;
  Path path_;
  int vector_size_;
  Scratch<Lane> lanes_, columns_;
  std::vector<char> active_;     // which parts of a vector hold any code
  Scratch<int64_t> row_at_;      // offset of each row in the output
  Scratch<double> row_factor_;   // and what its accumulators are multiplied by
};

// Runs all tasks of a plan with one worker a thread; returns how often an accumulator overflowed.
template <typename Path, typename... Args>
int64_t run_tasks(const Plan& plan, Args&&... args) {
  std::atomic<int64_t> overflows{0};
  parallel_for(plan.tasks(), 1, [&](int64_t begin, int64_t end) {
    Worker<Path> worker(plan, Path(args...));
    for (int64_t i = begin; i < end; ++i) worker.run(Task(plan, i));
    overflows += worker.overflows;
  });
  return overflows;
}

}  // namespace

void Engine::run(const std::vector<Product>& batch, bool accumulators, Counters* counters) const {
  if (batch.empty() || batch.front().left.rows == 0 || batch.front().right.rows == 0) return;
  const Plan plan(batch, datapath_, accumulators, counters != nullptr);
  const Kernels& kernel = kernels();
  const Tables& t = *tables_;
  int64_t overflows = 0;
  switch (path(plan.rows, plan.columns)) {
    case Path::rows:
      overflows = run_tasks<RowPath>(plan, kernel, datapath_, t.low);
      break;
    case Path::row_planes:
      overflows = run_tasks<RowPlanesPath>(plan, kernel, datapath_, t.low, t.one_plane ? nullptr : &t.high, t.plane_shift);
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
