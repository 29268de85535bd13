// Blocking, path choice and threads for the dot-product engine. A task is a block of rows of the longer operand
// against a panel of the other; it walks K once, one datapath vector at a time, with its accumulators in scratch.
#include "cpu/dot_products.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <utility>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace lns::cpu {

namespace {

// Rows of a task's block, and 16-column groups of its panel: the block's lanes stay in L1/L2 while the panel's
// groups pass over them, and a table built for 16 columns is used `kBlockRows` times.
constexpr int64_t kBlockRows = kTileRows;
constexpr int64_t kPanelGroups = 8;
// Building a row table costs as much as this many rows of use, and a look-up this many row additions (measured).
constexpr int64_t kBuildRows = 460;
constexpr int64_t kLookupCost = 6;

int64_t ceil_div(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// Uninitialised memory aligned for any vector.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t n) : data_(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)))) {}
  ~Scratch() {
    if (data_) ::operator delete(data_, std::align_val_t(64));
  }
  Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Scratch& operator=(Scratch&&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// The sums or accumulators of a task's groups, zero at its start.
template <typename T>
class Growing {
 public:
  void clear(int64_t n) {
    if (n > size_) memory_ = std::make_unique<Scratch<T>>(size_ = n);
    std::fill_n(memory_->get(), n, T{0});
  }
  T* get() const { return memory_->get(); }
  T* group(int64_t group, int64_t rows) const { return get() + group * rows * kColumns; }

 private:
  int64_t size_ = 0;
  std::unique_ptr<Scratch<T>> memory_;
};

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

// The ways to run a vector of lanes against a group of 16 columns, behind one shape: the lane type, how many lanes to
// take at once, what to note of a whole tile, how to prepare lanes of the columns, add them to a group's sums, and close
// the vector. Each path keeps its sums and accumulators: state[group][row][column].
class RowPath {
 public:
  using Lane = uint8_t;
  static constexpr int kDepth = kRowDepth;

  RowPath(const Kernels& kernel, const Datapath& d, const SignedProducts& products)
      : kernel_(kernel), accumulator_(d), products_(products) {}

  void start(int64_t rows, int64_t groups) { state_.clear(rows * groups * kColumns); }
  void see(const Lane* lanes, int64_t run, int64_t runs, int64_t pitch) { range_ = range_of(kernel_, lanes, run, runs, pitch); }
  void add(const Lane* columns, int pitch, const Lane* lanes, TileStrides strides, int64_t n, int depth, int64_t group) {
    kernel_.build_rows(products_, range_, columns, pitch, depth, rows_.get());
    kernel_.add_rows(lanes, strides, n, depth, rows_.get(), state_.group(group, n));
  }
  void close(int64_t n, int64_t group, int64_t* overflows) {
    kernel_.close32(accumulator_, state_.group(group, n), n, overflows);
  }
  int32_t read(int64_t i) const { return accumulator_.read(state_.get()[i]); }

  static CodeRange range_of(const Kernels& kernel, const Lane* lanes, int64_t run, int64_t runs, int64_t pitch) {
    CodeRange range;
    if (run == pitch)
      kernel.widen_range(lanes, run * runs, &range);
    else
      for (int64_t i = 0; i < runs; ++i) kernel.widen_range(lanes + i * pitch, run, &range);
    return range;
  }

 private:
  const Kernels& kernel_;
  Accumulator<int32_t> accumulator_;
  const SignedProducts& products_;
  CodeRange range_;
  Scratch<int32_t> rows_{kRowDepth * kLaneCodes * kColumns};
  Growing<int32_t> state_;
};

// Rows again, where accumulator and sum do not fit 32 bits together: the sum is kept in two 32-bit planes beside it.
class RowPlanesPath {
 public:
  using Lane = uint8_t;
  static constexpr int kDepth = kRowDepth;

  RowPlanesPath(const Kernels& kernel, const Datapath& d, const SignedProducts& low, const SignedProducts* high, int shift)
      : kernel_(kernel), accumulator_(d), low_(low), high_(high), shift_(shift) {}

  void start(int64_t rows, int64_t groups) {
    for (Growing<int32_t>* t : {&acc_, &low_sum_, &high_sum_}) t->clear(rows * groups * kColumns);
  }
  void see(const Lane* lanes, int64_t run, int64_t runs, int64_t pitch) {
    range_ = RowPath::range_of(kernel_, lanes, run, runs, pitch);
  }
  void add(const Lane* columns, int pitch, const Lane* lanes, TileStrides strides, int64_t n, int depth, int64_t group) {
    kernel_.build_rows(low_, range_, columns, pitch, depth, rows_.get());
    kernel_.add_rows(lanes, strides, n, depth, rows_.get(), low_sum_.group(group, n));
    if (!high_) return;
    kernel_.build_rows(*high_, range_, columns, pitch, depth, rows_.get());
    kernel_.add_rows(lanes, strides, n, depth, rows_.get(), high_sum_.group(group, n));
  }
  void close(int64_t n, int64_t group, int64_t* overflows) {
    kernel_.close_planes(accumulator_, acc_.group(group, n), low_sum_.group(group, n), high_sum_.group(group, n), shift_, n,
                         overflows);
  }
  int32_t read(int64_t i) const { return acc_.get()[i]; }

 private:
  const Kernels& kernel_;
  Accumulator<int64_t> accumulator_;
  const SignedProducts& low_;
  const SignedProducts* high_;  // null where every product fits the low plane
  int shift_;
  CodeRange range_;
  Scratch<int32_t> rows_{kRowDepth * kLaneCodes * kColumns};
  Growing<int32_t> acc_, low_sum_, high_sum_;
};

template <typename State>
class LookupPath {
 public:
  using Lane = int16_t;
  static constexpr int kDepth = 32;

  LookupPath(const Kernels& kernel, const Datapath& d, const State* table, int zero_start)
      : kernel_(kernel), accumulator_(d), table_(table), zero_start_(zero_start) {}

  void start(int64_t rows, int64_t groups) { state_.clear(rows * groups * kColumns); }
  void see(const Lane*, int64_t, int64_t, int64_t) {}
  void add(const Lane* columns, int pitch, const Lane* lanes, TileStrides strides, int64_t n, int depth, int64_t group) {
    for (int d = 0; d < depth; ++d)
      for (int c = 0; c < kColumns; ++c) {
        const int lane = columns[c * pitch + d];
        columns_.get()[d].start[c] = lane == 0 ? zero_start_ : lane < 0 ? -lane : lane;
        columns_.get()[d].sign[c] = lane < 0 ? -1 : 0;
      }
    if constexpr (sizeof(State) == 4)
      kernel_.add_lookups32(lanes, strides, n, depth, columns_.get(), table_, state_.group(group, n));
    else
      kernel_.add_lookups64(lanes, strides, n, depth, columns_.get(), table_, state_.group(group, n));
  }
  void close(int64_t n, int64_t group, int64_t* overflows) {
    if constexpr (sizeof(State) == 4)
      kernel_.close32(accumulator_, state_.group(group, n), n, overflows);
    else
      kernel_.close64(accumulator_, state_.group(group, n), n, overflows);
  }
  int32_t read(int64_t i) const { return accumulator_.read(state_.get()[i]); }

 private:
  const Kernels& kernel_;
  Accumulator<State> accumulator_;
  const State* table_;
  int zero_start_;
  Scratch<LookupLane<State>> columns_{kDepth};
  Growing<State> state_;
};

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

// Zero lanes and vanished products, from a histogram of exponents for every k: O(K * (rows + columns)) instead of
// O(K * rows * columns). Several k share a pass over the operands, as many as keep the histograms in cache.
class LaneCounter {
 public:
  LaneCounter(const Product& p, const Datapath& d)
      : p_(p),
        levels_(d.format.e_max() + 1),
        first_visible_(d.first_visible_product()),
        depth_(std::clamp<int64_t>(8192 / levels_, 1, 32)) {}

  void add_to(Counters& counters) const {
    std::atomic<int64_t> zero_lanes{0}, vanished{0};
    parallel_for(ceil_div(p_.k, depth_), 4, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> at_most(depth_ * levels_), nonzero(depth_);
      std::vector<int16_t> tile(kChunk * depth_);
      int64_t zeros = 0, lost = 0;
      for (int64_t k0 = begin * depth_; k0 < std::min(end * depth_, p_.k); k0 += depth_) {
        const int64_t depth = std::min(depth_, p_.k - k0);
        std::fill(at_most.begin(), at_most.end(), 0);
        std::fill(nonzero.begin(), nonzero.end(), 0);
        for_lanes(p_.left, tile, k0, depth, [&](int64_t d, int e) { ++at_most[d * levels_ + e]; });
        for (int64_t d = 0; d < depth; ++d) {
          int64_t* histogram = &at_most[d * levels_];
          nonzero[d] = p_.left.rows - histogram[0];
          histogram[0] = 0;
          for (int64_t e = 1; e < levels_; ++e) histogram[e] += histogram[e - 1];
        }
        int64_t pairs = 0;
        for_lanes(p_.right, tile, k0, depth, [&](int64_t d, int e) {
          if (e == 0) return;
          pairs += nonzero[d];
          const int64_t limit = std::clamp<int64_t>(first_visible_ - 1 - e, 0, levels_ - 1);
          lost += at_most[d * levels_ + limit];
        });
        zeros += p_.left.rows * p_.right.rows * depth - pairs;
      }
      zero_lanes += zeros;
      vanished += lost;
    });
    counters.zero_lanes += zero_lanes;
    counters.vanished += vanished;
  }

 private:
  static constexpr int64_t kChunk = 256;

  // Calls body(d, exponent) for every row of a side at k0 + d.
  template <typename Body>
  static void for_lanes(const Side& side, std::vector<int16_t>& tile, int64_t k0, int64_t depth, Body body) {
    for (int64_t r0 = 0; r0 < side.rows; r0 += kChunk) {
      const int64_t n = std::min(kChunk, side.rows - r0);
      const bool by_rows = side.operand->rows_are_contiguous();
      const TileStrides strides = by_rows ? TileStrides{1, kChunk} : TileStrides{depth, 1};
      side.operand->fill(tile.data(), strides, r0, n, k0, depth);
      for (int64_t d = 0; d < depth; ++d)
        for (int64_t r = 0; r < n; ++r) {
          const int lane = tile[r * strides.row + d * strides.depth];
          body(d, lane < 0 ? -lane : lane);
        }
    }
  }

  const Product& p_;
  int64_t levels_;
  int64_t first_visible_;
  int64_t depth_;
};

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
