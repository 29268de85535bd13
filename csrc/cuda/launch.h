// Where a call runs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

namespace lns::cuda {

struct Launch {
  int device;
  cudaStream_t stream;
  std::function<void*(size_t bytes)> allocate;  // scratch that lives until the stream has passed this call
};

}  // namespace lns::cuda
