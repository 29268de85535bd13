// The kernels' thread pool is torch's: torch.set_num_threads governs it.
#include "cpu/parallel.h"

#include <torch/csrc/stable/ops.h>

#include "cpu/ieee_floats.h"

namespace lns::cpu {

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    const IeeeFloats floats;
    body(begin, end);
  });
}

int num_threads() { return static_cast<int>(torch::stable::get_num_threads()); }

}  // namespace lns::cpu
