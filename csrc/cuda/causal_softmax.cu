// A warp has a row in registers: a lane every 32nd element. Sums are added up in the order of torch's kernels, so that
// codes are those of torch.softmax and its derivative; keys that a query does not see add zeros there, and are not
// read.
#include "cuda/causal_softmax.h"

#include <algorithm>

#include "core/rescale.h"
#include "cuda/check.h"
#include "gemm/operand.h"

namespace lns::cuda {

namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kWarps = 4;             // of a block, a row each
constexpr int kWarpLength = 1024;     // up to which torch's derivative takes a warp for a row, too
static_assert(kMostKeys == 256 * 8);  // then 256 threads, which take four elements at a time, twice

template <typename Code>
struct alignas(16) Chunk {
  Code at[16 / sizeof(Code)];
};

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, x, offset);
  return x;
}

// What a warp has of its row.
template <int N>
struct Row {
  int lane, visible;
  float x[N];

  // Body(i, element) for the elements that the query sees.
  template <typename Body>
  __device__ void each(Body body) const {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (32 * i >= visible) break;
      if (const int element = lane + 32 * i; element < visible) body(i, element);
    }
  }

  __device__ Row(const CausalRows& rows, int64_t row)
      : lane(threadIdx.x % 32), visible(min(rows.first + static_cast<int>(row % rows.rows) + 1, rows.seen)) {
    const float* products = rows.products + row * rows.seen;
    each([&](int i, int element) { x[i] = products[element]; });
    each([&](int i, int) { x[i] *= rows.factor; });
  }

  // Probabilities in x. Returns whether they are numbers.
  __device__ bool softmax() {
    float largest = -INFINITY, sum = 0;
    each([&](int i, int) { largest = fmaxf(largest, x[i]); });
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, offset));
    each([&](int i, int) { sum += x[i] = expf(x[i] - largest); });
    sum = warp_sum(sum);
    each([&](int i, int) { x[i] = x[i] / sum; });
    return !isnan(sum);
  }

  // The sum of a row's products with probabilities, as torch's derivative adds them up.
  __device__ float sum(const float* products, int length, float4* staged) const {
    if (length <= kWarpLength) {
      float sum = 0;
      each([&](int i, int) { sum += products[i]; });
      return warp_sum(sum);
    }
    for (int four = lane; four < kMostKeys / 4; four += 32) staged[four] = {};
    __syncwarp();
    each([&](int i, int element) { reinterpret_cast<float*>(staged)[element] = products[i]; });
    __syncwarp();
    float of_warp[8];
#pragma unroll
    for (int w = 0; w < 8; ++w) {  // of torch's block
      float sum = 0;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const float4 four = staged[256 * part + 32 * w + lane];
        sum += four.x;
        sum += four.y;
        sum += four.z;
        sum += four.w;
      }
      of_warp[w] = warp_sum(sum);
    }
    __syncwarp();
    return ((of_warp[0] + of_warp[4]) + (of_warp[2] + of_warp[6])) +
           ((of_warp[1] + of_warp[5]) + (of_warp[3] + of_warp[7]));
  }

  // Writes codes of x, and zeros up to the row's end.
  template <typename Code>
  __device__ void write(const Quantizer& q, uint32_t scale, Code* to, int length, Code* staged) const {
    const bool none = scale_is_nan(scale);
    const int k = scale_exponent(scale);
    constexpr int kChunk = 16 / sizeof(Code);
    for (int chunk = lane; chunk * kChunk < length; chunk += 32)
      if ((chunk + 1) * kChunk > visible) reinterpret_cast<Chunk<Code>*>(staged)[chunk] = {};
    __syncwarp();
    each([&](int i, int element) {
      staged[element] = static_cast<Code>(none ? 0 : quantize_one(q, float_bits(x[i]), k, 0));
    });
    __syncwarp();
    if (reinterpret_cast<uintptr_t>(to) % 16 == 0 && length % kChunk == 0)
      for (int chunk = lane; chunk * kChunk < length; chunk += 32)
        reinterpret_cast<Chunk<Code>*>(to)[chunk] = reinterpret_cast<const Chunk<Code>*>(staged)[chunk];
    else
      for (int element = lane; element < length; element += 32) to[element] = staged[element];
    __syncwarp();
  }
};

__device__ inline int64_t first_row() { return int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; }

// Where a row of all matrices lies.
__device__ inline int64_t place(int64_t rows, int64_t row, int64_t matrix_stride, int64_t row_stride) {
  return row / rows * matrix_stride + row % rows * row_stride;
}
template <typename Code>
__device__ inline Code* row_of(const CodeRows& to, const CausalRows& rows, int64_t row) {
  return static_cast<Code*>(to.codes) + place(rows.rows, row, to.matrix_stride, to.row_stride);
}

template <int N, typename Code>
__global__ void __launch_bounds__(32 * kWarps)
    write_probabilities(Quantizer q, CausalRows rows, float* scale, Code* codes, int stage) {
  extern __shared__ float4 stages[];
  float4* staged = stages + threadIdx.x / 32 * stage;
  const uint32_t bits = float_bits(*scale);
  for (int64_t row = first_row(); row < rows.count(); row += int64_t{gridDim.x} * kWarps) {
    Row<N> r(rows, row);
    if (!r.softmax() && r.lane == 0) *scale = bits_float(kNanBits);
    r.write(q, bits, codes + row * rows.seen, rows.seen, reinterpret_cast<Code*>(staged));
  }
}

template <int N, typename Code>
__global__ void __launch_bounds__(32 * kWarps)
    write_errors(Quantizer of_probabilities, Quantizer of_errors, CausalRows rows, const float* gradients,
                 const float* scale, CodeRows probabilities, CodeRows errors, RowScales error_scales, int stage) {
  extern __shared__ float4 stages[];
  float4* staged = stages + threadIdx.x / 32 * stage;
  for (int64_t row = first_row(); row < rows.count(); row += int64_t{gridDim.x} * kWarps) {
    Row<N> r(rows, row);
    float products[N];
    const float* of_row = gradients + row * rows.seen;
    r.each([&](int i, int element) { products[i] = of_row[element]; });
    r.softmax();
    r.write(of_probabilities, float_bits(*scale), row_of<Code>(probabilities, rows, row), rows.length,
            reinterpret_cast<Code*>(staged));
    r.each([&](int i, int) { products[i] *= r.x[i]; });
    const float sum = r.sum(products, rows.length, staged);
    uint32_t top = 0;
    r.each([&](int i, int) {
      r.x[i] = fmaf(-r.x[i], sum, products[i]) * rows.factor;  // contracted as in torch's build
      top = max(top, float_bits(r.x[i]) & 0x7fffffffu);
    });
    top = __reduce_max_sync(kAll, top);
    const uint32_t own = top == 0 ? 0 : scale_for(of_errors, top);
    if (r.lane == 0) error_scales.scales[place(rows.rows, row, error_scales.matrix_stride, 1)] = bits_float(own);
    r.write(of_errors, own, row_of<Code>(errors, rows, row), rows.length, reinterpret_cast<Code*>(staged));
  }
}

// A warp takes up the scale of its rows, which for codes says by how much they move.
template <typename Code>
__global__ void __launch_bounds__(32 * kWarps) move_rows(Quantizer q, CodeRows rows, int64_t matrices, int64_t count,
                                                         int length, RowScales scales, const float* scale) {
  constexpr int kChunk = 16 / sizeof(Code);
  const uint32_t to = float_bits(*scale);
  for (int64_t row = first_row(); row < matrices * count; row += int64_t{gridDim.x} * kWarps) {
    const uint32_t from = float_bits(scales.scales[place(count, row, scales.matrix_stride, 1)]);
    if (from == to || scale_is_nan(from) || scale_is_nan(to)) continue;
    const int k_from = scale_exponent(from), k_to = scale_exponent(to);
    const int visible = static_cast<int>(min(row % count + 1, int64_t{length}));
    Code* codes = static_cast<Code*>(rows.codes) + place(count, row, rows.matrix_stride, rows.row_stride);
    const auto moved = [&](Code code) { return static_cast<Code>(rescale_code(q, code, k_from, k_to, 0)); };
    if (reinterpret_cast<uintptr_t>(codes) % 16 == 0 && length % kChunk == 0)
      for (int chunk = threadIdx.x % 32; chunk * kChunk < visible; chunk += 32) {
        Chunk<Code> c = reinterpret_cast<Chunk<Code>*>(codes)[chunk];
#pragma unroll
        for (int j = 0; j < kChunk; ++j) c.at[j] = moved(c.at[j]);
        reinterpret_cast<Chunk<Code>*>(codes)[chunk] = c;
      }
    else
      for (int element = threadIdx.x % 32; element < visible; element += 32) codes[element] = moved(codes[element]);
  }
}

unsigned grid(int64_t rows) {
  return static_cast<unsigned>(std::min<int64_t>((rows + kWarps - 1) / kWarps, int64_t{1} << 20));
}

// What a warp needs in shared memory, in units of 16 bytes.
int stage(size_t bytes) { return static_cast<int>((bytes + 15) / 16); }

// Calls body with the number of a lane's elements, as a type.
template <int N>
struct Elements {
  static constexpr int kCount = N;
};
template <typename Body>
void with_elements(int keys, Body body) {
  if (keys <= 512)
    body(Elements<16>());
  else if (keys <= 1024)
    body(Elements<32>());
  else
    body(Elements<64>());
}

}  // namespace

void causal_probabilities(const Quantizer& q, const CausalRows& rows, float* scale, void* codes, const Launch& at) {
  if (rows.count() == 0) return;
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    const int each = stage(rows.seen * sizeof(Code));
    with_elements(rows.seen, [&](auto elements) {
      write_probabilities<decltype(elements)::kCount, Code>
          <<<grid(rows.count()), 32 * kWarps, 16 * kWarps * each, at.stream>>>(q, rows, scale,
                                                                               static_cast<Code*>(codes), each);
    });
  });
  check(cudaGetLastError(), "causal_probabilities");
}

void causal_errors(const Quantizer& of_probabilities, const Quantizer& of_errors, const CausalRows& rows,
                   const float* gradients, const float* scale, const CodeRows& probabilities, const CodeRows& errors,
                   const RowScales& error_scales, const Launch& at) {
  if (rows.count() == 0) return;
  with_code_type(of_errors.format, [&](auto type) {
    using Code = decltype(type);
    const size_t ordered = rows.length > kWarpLength ? kMostKeys * sizeof(float) : 0;
    const int each = stage(std::max(rows.length * sizeof(Code), ordered));
    with_elements(rows.seen, [&](auto elements) {
      write_errors<decltype(elements)::kCount, Code>
          <<<grid(rows.count()), 32 * kWarps, 16 * kWarps * each, at.stream>>>(
              of_probabilities, of_errors, rows, gradients, scale, probabilities, errors, error_scales, each);
    });
  });
  check(cudaGetLastError(), "causal_errors");
}

void causal_rescale(const Quantizer& q, const CodeRows& rows, int64_t matrices, int64_t count, int length,
                    const RowScales& scales, const float* scale, const Launch& at) {
  if (matrices * count == 0) return;
  with_code_type(q.format, [&](auto type) {
    move_rows<decltype(type)>
        <<<grid(matrices * count), 32 * kWarps, 0, at.stream>>>(q, rows, matrices, count, length, scales, scale);
  });
  check(cudaGetLastError(), "causal_rescale");
}

}  // namespace lns::cuda
