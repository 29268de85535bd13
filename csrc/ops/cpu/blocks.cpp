// The CPU's kernels of tensors with block scales behind the operators.
#include "cpu/blocks.h"

#include "cpu/elementwise.h"
#include "ops/blocks.h"

namespace lns::ops {

namespace {

struct Cpu {
  static void quantize_blocks(const QuantizerChoice& q, const Rng& rng, const Tensor& x, const Blocks& b, int most,
                              Tensor& codes, Tensor& scale, Tensor& shifts) {
    const Quantizer quantizer = quantizer_tables(q.format.gamma, q.thresholds).view(q.format, q.rounding, q.underflow);
    cpu::quantize_blocks(quantizer, decode_random_state(rng ? rng->const_data_ptr<int64_t>() : nullptr),
                         x.const_data_ptr<float>(), b, most, codes.mutable_data_ptr(), scale.mutable_data_ptr<float>(),
                         shifts.mutable_data_ptr<uint8_t>());
  }
  static void dequantize_blocks(const Format& f, const Tensor& codes, const Tensor& scale, const Tensor& shifts,
                                const Blocks& b, Tensor& out) {
    cpu::dequantize_blocks({.data = codes.const_data_ptr(), .format = f}, quantizer_tables(f.gamma),
                           scale.const_data_ptr<float>(), shifts.const_data_ptr<uint8_t>(), b,
                           out.mutable_data_ptr<float>());
  }
  static void forward_blocks(const Format& forward, const Format& update, const Tensor& codes, const Tensor& scale,
                             const Blocks& b, int most, Tensor& out, Tensor& out_scale, Tensor& shifts) {
    const CodeView view = {.data = codes.const_data_ptr(), .format = update};
    const float* from = scale.const_data_ptr<float>();
    float* to = out_scale.mutable_data_ptr<float>();
    // Codes at the one scale are overwritten by those at the blocks'.
    cpu::forward_codes(forward, view, from, whole(b.numel()), out.mutable_data_ptr(), to);
    cpu::forward_blocks(forward, view, from, to, b, most, out.mutable_data_ptr(), shifts.mutable_data_ptr<uint8_t>());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CPU, m) {
  m.impl("quantize_blocks", TORCH_BOX(&quantize_blocks<Cpu>));
  m.impl("dequantize_blocks", TORCH_BOX(&dequantize_blocks<Cpu>));
  m.impl("forward_blocks", TORCH_BOX(&forward_blocks<Cpu>));
}

}  // namespace lns::ops
