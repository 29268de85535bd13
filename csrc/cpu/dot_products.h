// The engine under every GEMM and convolution: all rows of one operand against all rows of another on the datapath.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/datapath.h"
#include "core/log_datapath.h"
#include "gemm/product.h"

namespace lns::cpu {

struct LogPathTables;
struct Tables;

// The kernel paths: ways from codes to accumulators, see paths.h and log_paths.h.
enum class Path { permute8, permute16, rows, row_planes, lookup32, lookup64, bins, log_registers, log_lookup };
constexpr int kPaths = 9;

// A validated datapath with its tables, shared by all products on it.
class Engine {
 public:
  explicit Engine(const Datapath& datapath);
  ~Engine();

  // Which kernels a product of this size takes; `shifted`: with block scales.
  Path path(int64_t left_rows, int64_t right_rows, bool shifted) const;
  // `accumulators` asks for int32 accumulators instead of float32; counters are added to.
  void run(const Product& product, bool accumulators, Counters* counters) const;

 private:
  Datapath datapath_;
  std::unique_ptr<const Tables> tables_;
};

// The same for a datapath that adds logarithms.
class LogEngine {
 public:
  explicit LogEngine(const LogDatapath& datapath);
  ~LogEngine();

  // Where nothing is counted; else it is the look-up.
  Path path(int64_t left_rows, int64_t right_rows) const;
  void run(const Product& product, bool accumulators, Counters* counters) const;

 private:
  LogDatapath datapath_;
  std::unique_ptr<const LogPathTables> tables_;
};

const char* path_name(Path path);
// How many products each path has run in this process.
std::array<int64_t, kPaths> path_runs();

}  // namespace lns::cpu
