// The GPU's engine for datapaths that add logarithms; the counterpart of LogEngine in cpu/dot_products.h.
#pragma once

#include <vector>

#include "core/log_datapath.h"
#include "cuda/launch.h"
#include "gemm/product.h"

namespace lns::cuda {

// A validated datapath with its tables, shared by all products on it.
class LogEngine {
 public:
  explicit LogEngine(const LogDatapath& datapath);

  // What a device needs a copy of.
  const std::vector<int32_t>& tables() const { return tables_; }
  // As Engine::run in cuda/gemm.h.
  void run(const Product& product, const int32_t* tables, bool accumulators, Counters* counters,
           const Launch& launch) const;

 private:
  LogDatapath datapath_;
  std::vector<int32_t> tables_;  // log_steps, then log_mantissas
  int steps_;                    // of the former
  bool short_steps_;             // they fit 16 bits, in steps of E
};

}  // namespace lns::cuda
