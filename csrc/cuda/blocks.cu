// A thread takes a block: its largest magnitude, its shift, its codes. Threads of a warp take neighbours in memory
// where blocks lie along another dimension than the last.
#include "cuda/blocks.h"

#include <algorithm>

#include "core/encoding.h"
#include "cuda/check.h"

namespace lns::cuda {

namespace {

constexpr int kThreads = 256;

// Calls body(block, first element, elements, stride between them).
template <typename Body>
__global__ void __launch_bounds__(kThreads) for_blocks(Blocks b, Body body) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < b.count(); i += int64_t{gridDim.x} * kThreads) {
    const int64_t inner = i % b.inner, at = i / b.inner % b.along() * b.block, outer = i / b.inner / b.along();
    body(i, (outer * b.n + at) * b.inner + inner, min(b.block, b.n - at), b.inner);
  }
}

template <typename Body>
void run(const Blocks& b, const Body& body, const Launch& at) {
  if (b.numel() == 0) return;
  int multiprocessors;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, at.device), "device attribute");
  const int64_t grid = std::min((b.count() + kThreads - 1) / kThreads, int64_t{multiprocessors} * 16);
  for_blocks<<<static_cast<unsigned>(grid), kThreads, 0, at.stream>>>(b, body);
  check(cudaGetLastError(), "kernel of blocks");
}

template <typename Code>
struct QuantizeBlock {
  Quantizer q;
  const int64_t* rng;
  const float *x, *scale;
  int s_max;
  Code* codes;
  uint8_t* shifts;

  __device__ void operator()(int64_t block, int64_t first, int64_t n, int64_t stride) const {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; ++i) top = max(top, float_bits(x[first + i * stride]) & 0x7fffffffu);
    const uint32_t bits = float_bits(*scale);
    const int shift = block_shift(q, top, bits, s_max), k = scale_exponent(bits) - shift;
    const bool draws = q.rounding == Rounding::stochastic || q.underflow == Underflow::stochastic;
    const RandomState random = decode_random_state(rng);
    shifts[block] = static_cast<uint8_t>(shift);
    for (int64_t i = 0, e = first; i < n; ++i, e += stride)
      codes[e] = static_cast<Code>(
          scale_is_nan(bits) ? 0 : quantize_one(q, float_bits(x[e]), k, draws ? philox_u24(random, e) : 0));
  }
};

template <typename Code>
struct DequantizeBlock {
  Format format;
  const uint32_t* values;
  const Code* codes;
  const float* scale;
  const uint8_t* shifts;
  float* x;

  __device__ void operator()(int64_t block, int64_t first, int64_t n, int64_t stride) const {
    const uint32_t bits = float_bits(*scale);
    for (int64_t i = 0, e = first; i < n; ++i, e += stride)
      x[e] = dequantize_one(format, values, codes[e], bits, shifts[block]);
  }
};

template <typename From, typename To>
struct ForwardBlock {
  Coarsening coarsening;
  const From* from;
  const float *update_scale, *scale;
  int s_max;
  To* to;
  uint8_t* shifts;

  __device__ void operator()(int64_t block, int64_t first, int64_t n, int64_t stride) const {
    int top = 0;
    for (int64_t i = 0; i < n; ++i) top = max(top, coarsening.update.exponent(from[first + i * stride]));
    const uint32_t old_bits = float_bits(*update_scale), bits = float_bits(*scale);
    const int shift = block_shift(coarsening, top, old_bits, bits, s_max);
    shifts[block] = static_cast<uint8_t>(shift);
    Coarsening c = coarsening;
    c.offset = scale_is_nan(bits) ? 0 : c.forward.gamma * (scale_exponent(old_bits) - scale_exponent(bits) + shift);
    for (int64_t i = 0, e = first; i < n; ++i, e += stride) to[e] = static_cast<To>(coarsen_code(c, from[e]));
  }
};

}  // namespace

void quantize_blocks(const Quantizer& q, const int64_t* rng, const float* x, const Blocks& b, int s_max, void* codes,
                     const float* scale, uint8_t* shifts, const Launch& at) {
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    run(b,
        QuantizeBlock<Code>{.q = q,
                            .rng = rng,
                            .x = x,
                            .scale = scale,
                            .s_max = s_max,
                            .codes = static_cast<Code*>(codes),
                            .shifts = shifts},
        at);
  });
}

void dequantize_blocks(const CodeView& codes, const Quantizer& q, const float* scale, const uint8_t* shifts,
                       const Blocks& b, float* x, const Launch& at) {
  with_code_type(codes.format, [&](auto type) {
    using Code = decltype(type);
    run(b,
        DequantizeBlock<Code>{.format = codes.format,
                              .values = q.values,
                              .codes = static_cast<const Code*>(codes.data),
                              .scale = scale,
                              .shifts = shifts,
                              .x = x},
        at);
  });
}

void forward_blocks(const Format& forward, const CodeView& update, const float* update_scale, const float* scale,
                    const Blocks& b, int s_max, void* codes, uint8_t* shifts, const Launch& at) {
  const Coarsening coarsening = {.update = update.format,
                                 .forward = forward,
                                 .shift = log2_exact(update.format.gamma) - log2_exact(forward.gamma),
                                 .offset = 0};
  with_code_type(update.format, [&](auto from_type) {
    with_code_type(forward, [&](auto to_type) {
      using From = decltype(from_type);
      using To = decltype(to_type);
      run(b,
          ForwardBlock<From, To>{.coarsening = coarsening,
                                 .from = static_cast<const From*>(update.data),
                                 .update_scale = update_scale,
                                 .scale = scale,
                                 .s_max = s_max,
                                 .to = static_cast<To*>(codes),
                                 .shifts = shifts},
          at);
    });
  });
}

}  // namespace lns::cuda
