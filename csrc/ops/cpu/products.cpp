// The CPU's engine behind the operators.
#include "ops/products.h"

#include "cpu/dot_products.h"

namespace lns::ops {

namespace {

struct Cpu {
  static void run(const Ints& datapath, const std::vector<Product>& products, bool accumulators, const Tensor&,
                  Tensor& counters) {
    static Cache<Ints, cpu::Engine> cache;
    const cpu::Engine& engine =
        cache.get(datapath, [&] { return std::make_unique<const cpu::Engine>(decode_datapath(datapath)); });
    const bool count = counters.numel() > 0;
    Counters c;
    for (const Product& p : products) engine.run(p, accumulators, count ? &c : nullptr);
    if (!count) return;
    int64_t* v = counters.mutable_data_ptr<int64_t>();
    v[0] = c.saturations;
    v[1] = c.vectors;
    v[2] = c.zero_lanes;
    v[3] = c.vanished;
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
