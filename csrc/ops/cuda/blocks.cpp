// The GPU's kernels of tensors with block scales behind the operators.
#include "cuda/blocks.h"

#include "cuda/elementwise.h"
#include "ops/blocks.h"
#include "ops/cuda/device.h"
#include "ops/cuda/quantizer.h"

namespace lns::ops {

namespace {

struct Cuda {
  static void quantize_blocks(const QuantizerChoice& q, const Rng& rng, const Tensor& x, const Blocks& b, int most,
                              Tensor& codes, Tensor& scale, Tensor& shifts) {
    const DeviceCall call(x);
    const Quantizer quantizer = view(q, call.launch(), x);
    cuda::quantizer_scale(quantizer, x.const_data_ptr<float>(), x.numel(), scale.mutable_data_ptr<float>(),
                          call.launch());
    cuda::quantize_blocks(quantizer, pointer(rng), x.const_data_ptr<float>(), b, most, codes.mutable_data_ptr(),
                          scale.const_data_ptr<float>(), shifts.mutable_data_ptr<uint8_t>(), call.launch());
  }
  static void dequantize_blocks(const Format& f, const Tensor& codes, const Tensor& scale, const Tensor& shifts,
                                const Blocks& b, Tensor& out) {
    const DeviceCall call(codes);
    cuda::dequantize_blocks({.data = codes.const_data_ptr(), .format = f}, view({.format = f}, call.launch(), codes),
                            scale.const_data_ptr<float>(), shifts.const_data_ptr<uint8_t>(), b,
                            out.mutable_data_ptr<float>(), call.launch());
  }
  static void forward_blocks(const Format& forward, const Format& update, const Tensor& codes, const Tensor& scale,
                             const Blocks& b, int most, Tensor& out, Tensor& out_scale, Tensor& shifts) {
    const DeviceCall call(codes);
    const CodeView view = {.data = codes.const_data_ptr(), .format = update};
    const float* from = scale.const_data_ptr<float>();
    float* to = out_scale.mutable_data_ptr<float>();
    // Codes at the one scale are overwritten by those at the blocks'.
    cuda::forward_codes(forward, view, from, whole(b.numel()), out.mutable_data_ptr(), to, call.launch());
    cuda::forward_blocks(forward, view, from, to, b, most, out.mutable_data_ptr(), shifts.mutable_data_ptr<uint8_t>(),
                         call.launch());
  }
};

Tensor images_fastest(Tensor codes, int64_t above, int64_t beside) {
  const bool wide = codes.scalar_type() == ScalarType::Short;
  require(codes.dim() == 4 && (wide || codes.scalar_type() == ScalarType::Byte), "codes must have 4 dimensions");
  require(as_int(above, "above") >= 0 && as_int(beside, "beside") >= 0,
          "zeros around images cannot be fewer than none");
  const cuda::Images images = {.count = codes.size(0),
                               .channels = codes.size(1),
                               .height = codes.size(2),
                               .width = codes.size(3),
                               .above = above,
                               .beside = beside};
  Tensor out = new_tensor(codes, {images.height + 2 * above, images.channels, images.width + 2 * beside, images.count},
                          codes.scalar_type());
  const DeviceCall call(codes);
  const Tensor from = torch::stable::contiguous(codes);
  cuda::images_fastest(from.const_data_ptr(), wide, images, out.mutable_data_ptr(), call.launch());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lns_sim, CUDA, m) {
  m.impl("images_fastest", TORCH_BOX(&images_fastest));
  m.impl("quantize_blocks", TORCH_BOX(&quantize_blocks<Cuda>));
  m.impl("dequantize_blocks", TORCH_BOX(&dequantize_blocks<Cuda>));
  m.impl("forward_blocks", TORCH_BOX(&forward_blocks<Cuda>));
}

}  // namespace lns::ops
