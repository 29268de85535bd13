// Kernels that begin while the one before them in the stream still ends: a launch's latency, a microsecond, is hidden.
#pragma once

#include <cuda_runtime.h>

#include "cuda/check.h"
#include "cuda/launch.h"

namespace lns::cuda {

// By all threads of a kernel that is followed by one launched so, before all else.
__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// By all threads of a kernel launched so, before all else that touches memory. What the kernels before it wrote must
// not be read as constant (__ldg): it is written while this kernel already runs.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

// Enqueues a kernel that waits so itself. Where it was built for older GPUs it waits in the stream, like any other.
template <typename... Parameters, typename... Arguments>
void launch_overlapped(void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes, const Launch& at,
                       const Arguments&... arguments) {
  cudaFuncAttributes built;
  check(cudaFuncGetAttributes(&built, kernel), "kernel attributes");
  cudaLaunchAttribute overlapped = {};
  overlapped.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlapped.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(blocks);
  config.blockDim = static_cast<unsigned>(threads);
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = at.stream;
  config.attrs = &overlapped;
  config.numAttrs = built.ptxVersion >= 90;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), "launch");
}

}  // namespace lns::cuda
