// The CPU's engine behind the operators.
#include "ops/gemm.h"

#include "cpu/dot_products.h"

namespace lns::ops {

namespace {

struct Cpu {
  static void run(const Ints& datapath, const std::vector<Product>& products, bool accumulators, const Tensor&,
                  Tensor& counters) {
    const bool count = counters.numel() > 0;
    Counters c;
    const auto run_on = [&](const auto& engine) {
      for (const Product& p : products) engine.run(p, accumulators, count ? &c : nullptr);
    };
    const AnyDatapath& any = datapath_of(datapath);
    if (const auto* log = std::get_if<LogDatapath>(&any))
      run_on(engine_of<cpu::LogEngine>(datapath, *log));
    else
      run_on(engine_of<cpu::Engine>(datapath, std::get<Datapath>(any)));
    if (count) memcpy(counters.mutable_data_ptr(), &c, sizeof c);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CPU, m) {
  m.impl("matmul", TORCH_BOX(&matmul<Cpu>));
  m.impl("conv2d", TORCH_BOX(&conv2d<Cpu>));
  m.impl("conv2d_input_gradient", TORCH_BOX(&conv2d_input_gradient<Cpu>));
  m.impl("conv2d_weight_gradient", TORCH_BOX(&conv2d_weight_gradient<Cpu>));
}

}  // namespace lns::ops
