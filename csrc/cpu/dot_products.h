// The engine under every GEMM and convolution: all rows of one operand against all rows of another on the datapath.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/datapath.h"
#include "cpu/operand.h"

namespace lns::cpu {

// Where row i's scale stands, and where its results go.
struct Side {
  std::shared_ptr<const Operand> operand;
  int64_t rows;
  Axis output;  // offset of a row in the output
  const float* scale;
  Axis scale_axis;
};

// One product: output[left.output(i) + right.output(j)] = dot(left row i, right row j).
struct Product {
  Side left, right;
  int64_t k;
  void* output;  // float32, or int32 if accumulators are asked for
};

// What happened in the datapath, for users who size one.
struct Counters {
  int64_t saturations = 0;  // accumulations that left acc_bits
  int64_t vectors = 0;      // accumulations
  int64_t zero_lanes = 0;   // products with a zero operand (padding of the last vector not counted)
  int64_t vanished = 0;     // products of non-zero operands under the accumulator's LSB
};

enum class Path { permute8, permute16, rows, row_planes, lookup32, lookup64 };
constexpr int kPaths = 6;

// A validated datapath with its tables, shared by all products of a call.
class Engine {
 public:
  explicit Engine(const Datapath& datapath);
  ~Engine();

  // Which kernels a product of this size takes.
  Path path(int64_t left_rows, int64_t right_rows) const;
  // Runs a batch of products of equal shape. `accumulators` asks for int32 accumulators instead of float32.
  void run(const std::vector<Product>& batch, bool accumulators, Counters* counters) const;

 private:
  struct Tables;
  Datapath datapath_;
  std::unique_ptr<const Tables> tables_;
};

const char* path_name(Path path);
// How many batches of products each path has run in this process.
std::array<int64_t, kPaths> path_runs();

}  // namespace lns::cpu
