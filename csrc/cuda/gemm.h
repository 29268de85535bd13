// The GPU's engine under every GEMM and convolution; the counterpart of cpu/dot_products.h, with the same results.
#pragma once

#include <memory>
#include <vector>

#include "core/datapath.h"
#include "cuda/launch.h"
#include "gemm/product.h"

namespace lns::cuda {

struct BinTable;
struct ProductTable;

// A validated datapath with its tables, shared by all products on it.
class Engine {
 public:
  explicit Engine(const Datapath& datapath);
  ~Engine();

  // What a device needs a copy of.
  const std::vector<int64_t>& tables() const { return tables_; }
  // Enqueues a product. `tables` is the device's copy, `counters` null or on the device, where they are
  // added to. Throws std::invalid_argument for sizes beyond 2^31, std::runtime_error if CUDA reports an error.
  void run(const Product& product, const int64_t* tables, bool accumulators, Counters* counters,
           const Launch& launch) const;

 private:
  Datapath datapath_;
  std::unique_ptr<const ProductTable> table_, table_for_blocks_;
  std::unique_ptr<const BinTable> bin_table_;  // instead, where bins are bounded
  std::vector<int64_t> tables_;
};

}  // namespace lns::cuda
