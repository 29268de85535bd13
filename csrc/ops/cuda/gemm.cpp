// The GPU's engine behind the operators.
#include "ops/gemm.h"

#include "cuda/gemm.h"
#include "cuda/log_gemm.h"
#include "ops/cuda/device.h"

namespace lns::ops {

namespace {

struct Cuda {
  static void run(const Ints& datapath, const std::vector<Product>& products, bool accumulators, const Tensor& out,
                  Tensor& counters) {
    Counters* counts = nullptr;
    const DeviceCall call(out);
    if (counters.numel() > 0) {
      torch::stable::zero_(counters);
      counts = reinterpret_cast<Counters*>(counters.mutable_data_ptr<int64_t>());
    }
    const auto run_on = [&](const auto& engine) {
      static auto& devices = *new DeviceTables<Ints>;  // outlives CUDA, which ends first
      const auto* tables = devices.get(datapath, call.launch(), out, [&]() -> const auto& { return engine.tables(); });
      for (const Product& p : products) engine.run(p, tables, accumulators, counts, call.launch());
    };
    const AnyDatapath& any = datapath_of(datapath);
    if (const auto* log = std::get_if<LogDatapath>(&any))
      run_on(engine_of<cuda::LogEngine>(datapath, *log));
    else
      run_on(engine_of<cuda::Engine>(datapath, std::get<Datapath>(any)));
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
