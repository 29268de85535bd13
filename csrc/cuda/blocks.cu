// A thread takes a block: its largest magnitude, its shift, its codes. Threads of a warp take neighbours in memory
// where blocks lie along another dimension than the last; else a thread reads and writes 16 bytes at a time.
#include "cuda/blocks.h"

#include <algorithm>

#include "core/encoding.h"
#include "cuda/check.h"
#include "cuda/nearest.cuh"

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

constexpr int kHeld = 32;  // elements of a block that a thread holds, so that blocks of so many are read once

// 16 bytes.
template <typename T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

template <typename T>
__device__ inline bool in_packs(const T* at, int n, int64_t stride) {
  return stride == 1 && n % Pack<T>::kSize == 0 && reinterpret_cast<uintptr_t>(at) % sizeof(Pack<T>) == 0;
}

// `held`: the first n from `at` on, and zeros.
template <typename T>
__device__ inline void take(T (&held)[kHeld], const T* at, int n, int64_t stride) {
  constexpr int kPack = Pack<T>::kSize;
  if (in_packs(at, n, stride)) {
#pragma unroll
    for (int i = 0; i < kHeld; i += kPack) {
      const Pack<T> pack = i < n ? *reinterpret_cast<const Pack<T>*>(at + i) : Pack<T>{};
#pragma unroll
      for (int j = 0; j < kPack; ++j) held[i + j] = pack.at[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kHeld; ++i, at += stride) held[i] = i < n ? *at : T{};
  }
}

template <typename T>
__device__ inline void give(const T (&held)[kHeld], T* at, int n, int64_t stride) {
  constexpr int kPack = Pack<T>::kSize;
  if (in_packs(at, n, stride)) {
#pragma unroll
    for (int i = 0; i < kHeld; i += kPack) {
      Pack<T> pack;
#pragma unroll
      for (int j = 0; j < kPack; ++j) pack.at[j] = held[i + j];
      if (i < n) *reinterpret_cast<Pack<T>*>(at + i) = pack;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kHeld; ++i, at += stride)
      if (i < n) *at = held[i];
  }
}

template <typename Code, bool kDraws>
struct QuantizeBlock {
  Quantizer q;
  const int64_t* rng;
  const float *x, *scale;
  int s_max;
  Code* codes;
  uint8_t* shifts;

  __device__ void operator()(int64_t block, int64_t first, int64_t n, int64_t stride) const {
    float held[kHeld];
    uint32_t top = 0;
    // Calls body(first of them, how many) for as many elements as a thread holds.
    const auto for_parts = [&](auto body) {
      for (int64_t at = 0; at < n; at += kHeld)
        body(first + at * stride, static_cast<int>(min(n - at, int64_t{kHeld})));
    };
    for_parts([&](int64_t from, int count) {
      take(held, x + from, count, stride);
#pragma unroll
      for (const float value : held) top = max(top, float_bits(value) & 0x7fffffffu);
    });
    const uint32_t bits = float_bits(*scale);
    const int shift = block_shift(q, top, bits, s_max), k = scale_exponent(bits) - shift;
    shifts[block] = static_cast<uint8_t>(shift);
    RandomState random;
    if constexpr (kDraws) random = decode_random_state(rng);
    for_parts([&](int64_t from, int count) {
      if (n > kHeld) take(held, x + from, count, stride);
      Code made[kHeld] = {};
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (scale_is_nan(bits) || (i % 8 == 0 && i >= count)) break;
        if constexpr (kDraws)
          made[i] = static_cast<Code>(quantize_one(q, float_bits(held[i]), k, philox_u24(random, from + i * stride)));
        else
          made[i] = static_cast<Code>(nearest_code(q, held[i], k));
      }
      give(made, codes + from, count, stride);
    });
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

// A tile of images and places of a channel's plane, turned in shared memory.
constexpr int kImages = 128, kPlaces = 32, kTurned = kImages * kPlaces / kThreads;  // the last: of a thread

template <typename Code>
__global__ void __launch_bounds__(kThreads) turn_images(const Code* __restrict__ from, Images p, Code* to) {
  __shared__ Code tile[kImages][kPlaces + 4 / sizeof(Code)];
  const int64_t plane = p.height * p.width, across = (plane + kPlaces - 1) / kPlaces, line = p.width + 2 * p.beside;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int64_t i = blockIdx.x; i < across * p.channels * ((p.count + kImages - 1) / kImages); i += gridDim.x) {
    const int64_t first = i % across * kPlaces, channel = i / across % p.channels,
                  image = i / across / p.channels * kImages;
    const auto within = [&](int image_at, int place) { return image + image_at < p.count && first + place < plane; };
    Code held[kTurned];
#pragma unroll
    for (int j = 0; j < kTurned; ++j) {
      const int r = warp * kTurned + j;
      held[j] = within(r, lane) ? from[((image + r) * p.channels + channel) * plane + first + lane] : Code{};
    }
    __syncthreads();  // the last tile has been read
#pragma unroll
    for (int j = 0; j < kTurned; ++j) tile[warp * kTurned + j][lane] = held[j];
    __syncthreads();
    for (int r = warp; r < kPlaces; r += kThreads / 32) {
      const unsigned place = static_cast<unsigned>(first) + r, width = static_cast<unsigned>(p.width);
      const int64_t row = (place / width + p.above) * p.channels + channel;
      Code* at = to + (row * line + place % width + p.beside) * p.count + image;
#pragma unroll
      for (int n = lane; n < kImages; n += 32)
        if (within(n, r)) at[n] = tile[n][r];
    }
  }
}

}  // namespace

void images_fastest(const void* codes, bool wide, const Images& p, void* to, const Launch& at) {
  const int64_t tiles = (p.height * p.width + kPlaces - 1) / kPlaces * p.channels * ((p.count + kImages - 1) / kImages),
                bytes = (p.height + 2 * p.above) * p.channels * (p.width + 2 * p.beside) * p.count * (wide ? 2 : 1);
  if (bytes > 0 && (p.above > 0 || p.beside > 0)) check(cudaMemsetAsync(to, 0, bytes, at.stream), "memset");
  if (tiles == 0) return;
  const auto turn = [&](auto code) {
    using Code = decltype(code);
    turn_images<<<static_cast<unsigned>(std::min(tiles, int64_t{1} << 20)), kThreads, 0, at.stream>>>(
        static_cast<const Code*>(codes), p, static_cast<Code*>(to));
    check(cudaGetLastError(), "turn_images");
  };
  wide ? turn(int16_t{}) : turn(uint8_t{});
}

void quantize_blocks(const Quantizer& q, const int64_t* rng, const float* x, const Blocks& b, int s_max, void* codes,
                     const float* scale, uint8_t* shifts, const Launch& at) {
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    const auto quantize = [&](auto of) {
      of.q = q, of.rng = rng, of.x = x, of.scale = scale, of.s_max = s_max, of.shifts = shifts;
      of.codes = static_cast<Code*>(codes);
      run(b, of, at);
    };
    if (q.rounding == Rounding::stochastic || q.underflow == Underflow::stochastic)
      quantize(QuantizeBlock<Code, true>{});
    else
      quantize(QuantizeBlock<Code, false>{});
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
