// A warp has a row in shared memory: a lane every 32nd element. Sums are added up in the order of torch's kernels, so
// that codes are those of torch.softmax and its derivative; keys that a query does not see add zeros there, and are not
// read. (In registers a row took 128 to 255 of a thread's, and loops unrolled over all of it.)
#include "cuda/causal_softmax.h"

#include <algorithm>
#include <type_traits>

#include "core/rescale.h"
#include "cuda/check.h"
#include "cuda/nearest.cuh"
#include "gemm/operand.h"

namespace lns::cuda {

namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kWarps = 4;             // of a block, a row each
constexpr int kBlocks = 6;            // of a multiprocessor at least, which leaves them registers
constexpr int kTable = 256;           // codes of a byte
constexpr int kWarpLength = 1024;     // up to which torch's derivative takes a warp for a row, too
static_assert(kMostKeys == 256 * 8);  // then 256 threads, which take four elements at a time, twice

template <typename Code>
struct alignas(16) Chunk {
  Code at[16 / sizeof(Code)];
};
template <typename Code>
struct alignas(4 * sizeof(Code)) Four {
  Code at[4];
};

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, x, offset);
  return x;
}

// What codes stand for at a scale; those of a byte are looked up.
template <typename Code>
struct Values {
  Format format;
  const uint32_t* values;
  uint32_t scale;
  const float* table;

  __device__ Values(const Quantizer& q, uint32_t scale, const float* table)
      : format(q.format), values(q.values), scale(scale), table(table) {}
  // By a whole block, before any is looked up, in shared memory.
  __device__ void fill(float* table) const {
    if constexpr (sizeof(Code) == 1) {
      for (int code = threadIdx.x; code < 2 * format.sign_bit(); code += blockDim.x)
        table[code] = dequantize_one(format, values, code, scale);
      __syncthreads();
    }
  }
  __device__ float of(Code code) const {
    if constexpr (sizeof(Code) == 1)
      return table[code];
    else
      return dequantize_one(format, values, code, scale);
  }
};

// What a warp has of its row, and how many elements a lane takes at a time: more hide more of what loads take, where
// few warps have room.
template <int kTogether>
struct Row {
  int lane, visible;
  int64_t matrix, query;  // of the block's

  // to(element, from(element)) for these elements, several at a time, so that their loads are under way together: all
  // are made before anything is written, of the lane's first element once more where the row ends before.
  template <typename From, typename To>
  __device__ void each(From from, To to) const {
    for (int first = lane; first < visible; first += 32 * kTogether) {
      decltype(from(0)) found[kTogether];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) found[j] = from(first + 32 * j < visible ? first + 32 * j : lane);
#pragma unroll
      for (int j = 0; j < kTogether; ++j)
        if (first + 32 * j < visible) to(first + 32 * j, found[j]);
    }
  }

  __device__ Row(const CausalRows& rows, int64_t row)
      : lane(threadIdx.x % 32), matrix(row / rows.rows), query(row - matrix * rows.rows) {
    visible = min(rows.first + static_cast<int>(query) + 1, rows.seen);
  }

  // Where it lies in a tensor of all matrices.
  template <typename Element>
  __device__ Element* in(const CodeRows& to) const {
    return static_cast<Element*>(to.codes) + matrix * to.matrix_stride + query * to.row_stride;
  }

  // Exponentials of scores, in place. Returns their sum.
  __device__ float exponentials(float* scores, float largest) const {
    float sum = 0;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, offset));
    each([&](int element) { return expf(scores[element] - largest); },
         [&](int element, float exponential) { sum += scores[element] = exponential; });
    return warp_sum(sum);
  }

  // Zeros behind the last element that the query sees, up to the row's end.
  template <typename T>
  __device__ void clear(T* to, int length) const {
    for (int element = visible + lane; element < length; element += 32) to[element] = T{};
  }

  // Writes a row of codes that lies in shared memory, with zeros behind those that were put there.
  template <typename Code>
  __device__ void write(Code* staged, Code* to, int length) const {
    constexpr int kChunk = 16 / sizeof(Code);
    clear(staged, length);
    __syncwarp();
    if (reinterpret_cast<uintptr_t>(to) % 16 == 0 && length % kChunk == 0)
      for (int chunk = lane; chunk * kChunk < length; chunk += 32)
        reinterpret_cast<Chunk<Code>*>(to)[chunk] = reinterpret_cast<const Chunk<Code>*>(staged)[chunk];
    else
      for (int element = lane; element < length; element += 32) to[element] = staged[element];
    __syncwarp();
  }

  // Writes the codes that `found` makes of elements, or what these stand for (To: float), with zeros behind.
  template <typename Code, typename To, typename Found>
  __device__ void put(const Found& found, const Values<Code>& values, Code* staged, To* to, int length) const {
    if constexpr (std::is_same_v<To, float>) {
      each(found, [&](int element, Code c) { to[element] = values.of(c); });
      clear(to, length);
    } else {
      each(found, [&](int element, Code c) { staged[element] = c; });
      write(staged, to, length);
    }
  }
};

// The sum of a row of `seen` products beyond kWarpLength, as torch's derivative adds them up; there are zeros behind.
__device__ inline float block_sum(const float* products, int lane) {
  const auto* fours = reinterpret_cast<const float4*>(products);
  float of_warp[8];
#pragma unroll
  for (int w = 0; w < 8; ++w) {  // of torch's block
    float sum = 0;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float4 four = fours[256 * part + 32 * w + lane];
      sum += four.x;
      sum += four.y;
      sum += four.z;
      sum += four.w;
    }
    of_warp[w] = warp_sum(sum);
  }
  return ((of_warp[0] + of_warp[4]) + (of_warp[2] + of_warp[6])) +
         ((of_warp[1] + of_warp[5]) + (of_warp[3] + of_warp[7]));
}

__device__ inline int64_t first_row() { return int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; }

// A code of a float32 number at a scale, 0 where that is NaN.
template <typename Code>
struct ToCode {
  Quantizer q;
  int k;
  bool none;
  __device__ ToCode(const Quantizer& q, uint32_t scale) : q(q), k(scale_exponent(scale)), none(scale_is_nan(scale)) {}
  __device__ Code operator()(float x) const { return static_cast<Code>(none ? 0 : nearest_code(q, x, k)); }
};

// A warp's rows in shared memory: one or two of numbers, one of codes.
struct Stage {
  int floats, rows, bytes;  // of a row of numbers, how many, and of all

  template <typename Code>
  static Stage of(int floats, int rows, int codes) {
    floats = (floats + 3) / 4 * 4;
    return {.floats = floats,
            .rows = rows,
            .bytes = rows * floats * int{sizeof(float)} + (codes * int{sizeof(Code)} + 15) / 16 * 16};
  }
  __device__ float* row(char* all, int i) const {
    return reinterpret_cast<float*>(all + threadIdx.x / 32 * bytes) + i * floats;
  }
  template <typename Code>
  __device__ Code* codes(char* all) const {
    return reinterpret_cast<Code*>(row(all, rows));
  }
};

// Probabilities become codes, or what these stand for (To: float), which may take the products' place.
template <typename Code, typename To>
__global__ void __launch_bounds__(32 * kWarps, kBlocks)
    write_probabilities(Quantizer q, CausalRows rows, float* scale, To* to, Stage stage) {
  extern __shared__ char all[];
  __shared__ float table[kTable];
  const uint32_t bits = float_bits(*scale);
  const Values<Code> values(q, bits, table);
  if constexpr (std::is_same_v<To, float>) values.fill(table);
  const ToCode<Code> code(q, bits);
  float* x = stage.row(all, 0);
  Code* staged = stage.codes<Code>(all);
  for (int64_t row = first_row(); row < rows.count(); row += int64_t{gridDim.x} * kWarps) {
    const Row<4> r(rows, row);
    const float* products = rows.products + row * rows.seen;
    float largest = -INFINITY;
    r.each([&](int element) { return products[element] * rows.factor; },
           [&](int element, float score) {
             x[element] = score;
             largest = fmaxf(largest, score);
           });
    const float sum = r.exponentials(x, largest);
    if (isnan(sum) && r.lane == 0) *scale = bits_float(kNanBits);
    r.put([&](int element) { return code(x[element] / sum); }, values, staged, to + row * rows.seen, rows.seen);
  }
}

struct Two {
  float x, y;
};

template <typename Code, typename To>
__global__ void __launch_bounds__(32 * kWarps, kBlocks)
    write_errors(Quantizer of_probabilities, Quantizer of_errors, CausalRows rows, const float* gradients,
                 const float* scale, CodeRows probabilities, CodeRows errors, RowScales error_scales, Stage stage) {
  extern __shared__ char all[];
  __shared__ float table[kTable];
  const uint32_t bits = float_bits(*scale);
  const Values<Code> values(of_probabilities, bits, table);
  if constexpr (std::is_same_v<To, float>) values.fill(table);
  const ToCode<Code> code(of_probabilities, bits);
  float *x = stage.row(all, 0), *y = stage.row(all, 1);
  Code* staged = stage.codes<Code>(all);
  for (int64_t row = first_row(); row < rows.count(); row += int64_t{gridDim.x} * kWarps) {
    const Row<8> r(rows, row);
    const float *products = rows.products + row * rows.seen, *of_row = gradients + row * rows.seen;
    float largest = -INFINITY, sum = 0;
    r.each([&](int element) { return Two{.x = products[element] * rows.factor, .y = of_row[element]}; },
           [&](int element, const Two& found) {
             x[element] = found.x;
             y[element] = found.y;
             largest = fmaxf(largest, found.x);
           });
    const float exponentials = r.exponentials(x, largest);
    r.each(
        [&](int element) {
          const float p = x[element] / exponentials;
          return Two{.x = p, .y = y[element] * p};
        },
        [&](int element, const Two& found) {
          x[element] = found.x;
          y[element] = found.y;
          sum += found.y;
        });
    if (rows.length <= kWarpLength) {
      sum = warp_sum(sum);
    } else {
      r.clear(y, kMostKeys);
      __syncwarp();
      sum = block_sum(y, r.lane);
    }
    r.put([&](int element) { return code(x[element]); }, values, staged, r.in<To>(probabilities),
          std::is_same_v<To, float> ? rows.seen : rows.length);
    uint32_t top = 0;
    r.each(  // contracted as in torch's build
        [&](int element) { return fmaf(-x[element], sum, y[element]) * rows.factor; },
        [&](int element, float error) {
          y[element] = error;
          top = max(top, float_bits(error) & 0x7fffffffu);
        });
    top = __reduce_max_sync(kAll, top);
    const uint32_t own = top == 0 ? 0 : scale_for(of_errors, top);
    if (r.lane == 0) error_scales.scales[r.matrix * error_scales.matrix_stride + r.query] = bits_float(own);
    const ToCode<Code> error_code(of_errors, own);
    r.each([&](int element) { return error_code(y[element]); }, [&](int element, Code c) { staged[element] = c; });
    r.write(staged, r.in<Code>(errors), rows.length);
  }
}

// One of them.
template <typename Code>
struct ScaledRow {
  int64_t matrix, query;
  uint32_t scale;
  Code* codes;

  __device__ ScaledRow(const ScaledRows& of, int64_t row)
      : matrix(row / of.count),
        query(row - matrix * of.count),
        scale(float_bits(of.scales.scales[matrix * of.scales.matrix_stride + query])),
        codes(static_cast<Code*>(of.rows.codes) + matrix * of.rows.matrix_stride + query * of.rows.row_stride) {}
};

// What a row's codes stand for at a scale that they are moved to.
template <typename Code>
__global__ void __launch_bounds__(32 * kWarps, kBlocks)
    write_values(Quantizer q, ScaledRows rows, const float* scale, float* to, bool wide) {
  __shared__ float table[kTable];
  const uint32_t target = float_bits(*scale);
  const Values<Code> values(q, target, table);
  values.fill(table);
  for (int64_t row = first_row(); row < rows.all(); row += int64_t{gridDim.x} * kWarps) {
    const ScaledRow<Code> r(rows, row);
    const uint32_t own = r.scale;
    const bool stays = own == target || scale_is_nan(own) || scale_is_nan(target);
    const int from = stays ? 0 : scale_exponent(own), into = stays ? 0 : scale_exponent(target);
    float* of_row = to + row * rows.length;
    const auto value = [&](Code c) { return values.of(static_cast<Code>(rescale_code(q, c, from, into, 0))); };
    if (wide)
#pragma unroll 4
      for (int four = threadIdx.x % 32; four < rows.length / 4; four += 32) {
        const auto c = reinterpret_cast<const Four<Code>*>(r.codes)[four];
        reinterpret_cast<float4*>(of_row)[four] = {value(c.at[0]), value(c.at[1]), value(c.at[2]), value(c.at[3])};
      }
    else
      for (int element = threadIdx.x % 32; element < rows.length; element += 32)
        of_row[element] = value(r.codes[element]);
  }
}

// A warp takes up the scale of its rows, which for codes says by how much they move.
template <typename Code>
__global__ void __launch_bounds__(32 * kWarps, kBlocks) move_rows(Quantizer q, ScaledRows rows, const float* scale) {
  constexpr int kChunk = 16 / sizeof(Code);
  const uint32_t to = float_bits(*scale);
  for (int64_t row = first_row(); row < rows.all(); row += int64_t{gridDim.x} * kWarps) {
    const ScaledRow<Code> r(rows, row);
    const uint32_t from = r.scale;
    if (from == to || scale_is_nan(from) || scale_is_nan(to)) continue;
    const int k_from = scale_exponent(from), k_to = scale_exponent(to);
    const int visible = static_cast<int>(min(r.query + 1, int64_t{rows.length}));
    Code* codes = r.codes;
    const auto moved = [&](Code code) { return static_cast<Code>(rescale_code(q, code, k_from, k_to, 0)); };
    if (reinterpret_cast<uintptr_t>(codes) % 16 == 0 && rows.length % kChunk == 0)
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

// Launches a kernel whose blocks take `bytes` of shared memory.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, int bytes, const Launch& at,
            const Arguments&... arguments) {
  if (bytes > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory");
  kernel<<<blocks, 32 * kWarps, bytes, at.stream>>>(arguments...);
  check(cudaGetLastError(), "causal softmax");
}

}  // namespace

void causal_probabilities(const Quantizer& q, const CausalRows& rows, float* scale, void* to, bool values,
                          const Launch& at) {
  if (rows.count() == 0) return;
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    const Stage stage = Stage::of<Code>(rows.seen, 1, values ? 0 : rows.seen);
    const unsigned blocks = grid(rows.count());
    if (values)
      launch(write_probabilities<Code, float>, blocks, kWarps * stage.bytes, at, q, rows, scale,
             static_cast<float*>(to), stage);
    else
      launch(write_probabilities<Code, Code>, blocks, kWarps * stage.bytes, at, q, rows, scale, static_cast<Code*>(to),
             stage);
  });
}

void causal_errors(const Quantizer& of_probabilities, const Quantizer& of_errors, const CausalRows& rows,
                   const float* gradients, const float* scale, const CodeRows& probabilities, bool values,
                   const CodeRows& errors, const RowScales& error_scales, const Launch& at) {
  if (rows.count() == 0) return;
  with_code_type(of_errors.format, [&](auto type) {
    using Code = decltype(type);
    const Stage stage = Stage::of<Code>(rows.length > kWarpLength ? kMostKeys : rows.seen, 2, rows.length);
    launch(values ? write_errors<Code, float> : write_errors<Code, Code>, grid(rows.count()), kWarps * stage.bytes, at,
           of_probabilities, of_errors, rows, gradients, scale, probabilities, errors, error_scales, stage);
  });
}

void causal_rescale(const Quantizer& q, const ScaledRows& rows, const float* scale, const Launch& at) {
  if (rows.all() == 0) return;
  with_code_type(q.format,
                 [&](auto type) { launch(move_rows<decltype(type)>, grid(rows.all()), 0, at, q, rows, scale); });
}

void causal_values(const Quantizer& q, const ScaledRows& rows, const float* scale, float* to, const Launch& at) {
  if (rows.all() * rows.length == 0) return;
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    const CodeRows& codes = rows.rows;
    const bool wide = rows.length % 4 == 0 && codes.row_stride % 4 == 0 && codes.matrix_stride % 4 == 0 &&
                      reinterpret_cast<uintptr_t>(codes.codes) % (4 * sizeof(Code)) == 0 &&
                      reinterpret_cast<uintptr_t>(to) % 16 == 0;
    launch(write_values<Code>, grid(rows.all()), 0, at, q, rows, scale, to, wide);
  });
}

}  // namespace lns::cuda
