// What a device, and a product on it, may have.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/check.h"
#include "gemm/product.h"

namespace lns::cuda {

struct Limits {
  int multiprocessors, shared_bytes;

  explicit Limits(int device) {
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "device attribute");
    check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "device attribute");
  }
};

inline void check_sizes(const Product& p) {
  constexpr int64_t most = int64_t{1} << 31;
  for (const auto [name, size] : {std::pair{"rows", p.left.rows}, {"columns", p.right.rows}, {"K", p.k}})
    if (size >= most)
      throw std::invalid_argument(std::string("a product on a GPU must have fewer than 2^31 ") + name + ", got " +
                                  std::to_string(size));
}

}  // namespace lns::cuda
