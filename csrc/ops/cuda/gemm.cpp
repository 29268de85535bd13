// The GPU's engine behind the operators.
#include "ops/gemm.h"

#include "cuda/gemm.h"
#include "ops/cuda/device.h"

namespace lns::ops {

namespace {

struct Cuda {
  static void run(const Ints& datapath, const std::vector<Product>& products, bool accumulators, const Tensor& out,
                  Tensor& counters) {
    static Cache<Ints, cuda::Engine> engines;
    static auto& devices = *new DeviceTables<Ints>;  // outlives CUDA, which ends first
    const cuda::Engine& engine =
        engines.get(datapath, [&] { return std::make_unique<const cuda::Engine>(datapath_of(datapath)); });
    const DeviceCall call(out);
    const int64_t* tables =
        devices.get(datapath, call.launch(), out, [&]() -> const std::vector<int64_t>& { return engine.tables(); });
    Counters* counts = nullptr;
    if (counters.numel() > 0) {
      torch::stable::zero_(counters);
      counts = reinterpret_cast<Counters*>(counters.mutable_data_ptr<int64_t>());
    }
    for (const Product& p : products) engine.run(p, tables, accumulators, counts, call.launch());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CUDA, m) {
  m.impl("matmul", TORCH_BOX(&matmul<Cuda>));
  m.impl("conv2d", TORCH_BOX(&conv2d<Cuda>));
  m.impl("conv2d_input_gradient", TORCH_BOX(&conv2d_input_gradient<Cuda>));
  m.impl("conv2d_weight_gradient", TORCH_BOX(&conv2d_weight_gradient<Cuda>));
}

}  // namespace lns::ops
