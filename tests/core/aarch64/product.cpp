// product M N K RUNS: one product of the paper's datapath, as often; says the instruction set and the path that it
// takes.
#include "../cpp/check.h"
#include "cpu/dot_products.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace lns::cpu {
void parallel_for(int64_t n, int64_t, const std::function<void(int64_t, int64_t)>& body) { body(0, n); }
int num_threads() { return 1; }
}  // namespace lns::cpu

int main(int, char** argv) {
  using namespace lns;
  const int64_t m = std::atoi(argv[1]), n = std::atoi(argv[2]), k = std::atoi(argv[3]), runs = std::atoi(argv[4]);
  const Datapath d = test::datapath({.bits = 8, .gamma = 8});
  const test::Codes a(d.format, m * k), b(d.format, n * k);
  const float one = 1.0f;
  std::vector<float> out(m * n);
  const Product product = {.left = {.operand = OperandView::strided(a.view(), k, Axis::flat(k, 1)),
                                    .rows = m,
                                    .output = Axis::flat(m, n),
                                    .scale = &one,
                                    .scale_axis = Axis::flat(m, 0)},
                           .right = {.operand = OperandView::strided(b.view(), k, Axis::flat(k, 1)),
                                     .rows = n,
                                     .output = Axis::flat(n, 1),
                                     .scale = &one,
                                     .scale_axis = Axis::flat(n, 0)},
                           .k = k,
                           .output = out.data(),
                           .batch = {}};
  const cpu::Engine engine(d);
  for (int64_t i = 0; i < runs; ++i) engine.run(product, false, nullptr);
  std::printf("%s %s\n", cpu::kernels().name, cpu::path_name(engine.path(m, n, false)));
}
