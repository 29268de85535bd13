// Barriers among some of a block's warps.
#pragma once

#include <cstdint>

namespace lns::cuda {

// A barrier in shared memory that some threads pass when others have arrived; phases alternate. Every thread whose
// accesses it orders arrives itself.
class Gate {
 public:
  __device__ explicit Gate(void* shared) : at_(static_cast<uint32_t>(__cvta_generic_to_shared(shared))) {}
  __device__ void init(int arrivals) const {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at_), "r"(arrivals) : "memory");
  }
  __device__ void arrive() const {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(at_) : "memory");
  }
  __device__ void wait(uint32_t phase) const {
    while (!passed(phase)) {
#if __CUDA_ARCH__ < 900
      __nanosleep(100);
#endif
    }
  }

 private:
  __device__ bool passed(uint32_t phase) const {
    uint32_t done;
#if __CUDA_ARCH__ >= 900  // waits a while by itself
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(at_), "r"(phase)
                 : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(at_), "r"(phase)
                 : "memory");
#endif
    return done != 0;
  }

  uint32_t at_;
};

// `threads` of the block, whole warps of them, meet at named barrier `barrier` (0 is __syncthreads').
__device__ inline void synchronize(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

}  // namespace lns::cuda
