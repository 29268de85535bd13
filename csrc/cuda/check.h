// CUDA errors as C++ exceptions that name the call.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace lns::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  if (error == cudaErrorNoKernelImageForDevice)
    throw std::runtime_error(
        "lns_sim's CUDA kernels were not built for this GPU: rebuild with TORCH_CUDA_ARCH_LIST naming its "
        "compute capability (8.0 or later)");
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace lns::cuda
