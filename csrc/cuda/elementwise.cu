// One thread takes eight neighbouring elements at a time, in wide loads where the tensors' addresses allow.
#include "cuda/elementwise.h"

#include <algorithm>
#include <type_traits>

#include "core/encoding.h"
#include "cuda/check.h"
#include "cuda/nearest.cuh"

namespace lns::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPack = 8;  // elements of a thread at a time
constexpr int kBlocksPerSm = 8;
constexpr int64_t kLongRun = 1024;  // elements of one scale in a row that are worth a block

int64_t full_grid(const Launch& at) {
  int multiprocessors;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, at.device), "device attribute");
  return int64_t{multiprocessors} * kBlocksPerSm;
}

// Blocks of a kernel that the device runs together: more would wait, and end when few are left.
template <typename Kernel>
int64_t resident_blocks(Kernel kernel, const Launch& at) {
  int multiprocessors, each;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, at.device), "device attribute");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, kThreads, 0), "occupancy");
  return int64_t{multiprocessors} * each;
}

bool aligned(const void* p, size_t element) { return reinterpret_cast<uintptr_t>(p) % (kPack * element) == 0; }
bool aligned(const FloatRuns& runs) {
  static_assert(FloatRuns::kMultiple % kPack == 0);
  return aligned(runs.x, sizeof(float)) &&
         std::ranges::all_of(runs.strides, [](int64_t stride) { return stride % kPack == 0; });
}

template <typename T>
struct alignas(kPack * sizeof(T)) Pack {
  T at[kPack];
};

// Eight elements from `first`, or as many as there are; one load or store where `wide`.
template <typename T>
__device__ inline Pack<T> load(const T* from, int64_t first, int64_t n, bool wide) {
  if (wide && first + kPack <= n) return *reinterpret_cast<const Pack<T>*>(from + first);
  Pack<T> p{};
#pragma unroll
  for (int j = 0; j < kPack; ++j)
    if (first + j < n) p.at[j] = from[first + j];
  return p;
}
template <typename T>
__device__ inline void store(T* to, int64_t first, int64_t n, bool wide, const Pack<T>& p) {
  if (wide && first + kPack <= n) {
    *reinterpret_cast<Pack<T>*>(to + first) = p;
    return;
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j)
    if (first + j < n) to[first + j] = p.at[j];
}

// Body: begin() by the whole block where it has that, enter(slice) for every run of one slice that a thread meets, then
// pack(first, n), or one(i) where slices change within a pack. `whole`: there is one slice; divisions by the slices'
// extents would double the registers.
template <bool whole, typename Body>
__global__ void __launch_bounds__(kThreads) for_packs(Slices s, Body body) {
  const int64_t n = s.numel(), start = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kPack,
                step = int64_t{gridDim.x} * kThreads * kPack;
  if constexpr (requires { body.begin(); }) body.begin();
  if constexpr (whole) {
    body.enter(0);
    for (int64_t first = start; first < n; first += step) body.pack(first, n);
    return;
  }
  const bool whole_packs = s.inner % kPack == 0;
  int64_t slice = -1;
  for (int64_t first = start; first < n; first += step) {
    for (int64_t i = first; i < min(first + kPack, n); ++i) {
      const int64_t now = i / s.inner % s.slices;
      if (now != slice) body.enter(slice = now);
      if (whole_packs) {
        body.pack(first, n);
        break;
      }
      body.one(i);
    }
  }
}

template <typename Body>
void run(const Slices& s, const Body& body, const Launch& at) {
  const int64_t n = s.numel();
  if (n == 0) return;
  const auto kernel = s.slices == 1 ? for_packs<true, Body> : for_packs<false, Body>;
  const int64_t blocks = std::min((n + kThreads * kPack - 1) / (kThreads * kPack), resident_blocks(kernel, at));
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, at.stream>>>(s, body);
  check(cudaGetLastError(), "elementwise kernel");
}

// Elements of one run.
template <typename T>
struct OneRun {
  const T* x;
  __device__ const T* origin(int64_t) const { return x; }
};
template <typename T>
bool aligned(const OneRun<T>& run) {
  return aligned(run.x, sizeof(T));
}

// A body that makes each element of one tensor an element of another. From tells where elements lie (OneRun,
// FloatRuns); Of has a body's begin and enter, and (value, index).
template <typename From, typename To, typename Of>
struct Mapping {
  From from;
  To* to;
  Of of;
  bool wide;

  __device__ void begin() {
    if constexpr (requires { of.begin(); }) of.begin();
  }
  __device__ void enter(int64_t slice) { of.enter(slice); }
  __device__ void one(int64_t i) { to[i] = of(from.origin(i)[i], i); }
  __device__ void pack(int64_t first, int64_t n) {
    const auto p = load(from.origin(first), first, n, wide);
    Pack<To> made;
#pragma unroll
    for (int j = 0; j < kPack; ++j) made.at[j] = of(p.at[j], first + j);
    store(to, first, n, wide, made);
  }
};

template <typename From, typename To, typename Of>
void map(const Slices& s, const From& from, To* to, const Of& of, const Launch& at) {
  const bool wide = aligned(from) && aligned(to, sizeof(To));
  run(s, Mapping<From, To, Of>{.from = from, .to = to, .of = of, .wide = wide}, at);
}
template <typename From, typename To, typename Of>
void map(const Slices& s, const From* from, To* to, const Of& of, const Launch& at) {
  map(s, OneRun<From>{.x = from}, to, of, at);
}

// ---- The largest values of every slice, by unsigned comparison; there are Value::kCount of them.

// Of one slice's `parts` the largest is meant; of several slices each has one.
struct Tops {
  const uint32_t* at;
  int64_t parts;
};

// The largest of a block's numbers, for all its threads.
__device__ inline uint32_t block_max(uint32_t value) {
  __shared__ uint32_t of_warp[kThreads / 32];
  value = __reduce_max_sync(0xffffffffu, value);
  __syncthreads();  // the one before has been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (const uint32_t of : of_warp) value = max(value, of);
  return value;
}

// One number of a slice; by a whole block, which has one slice where there are several parts.
template <int kCount>
__device__ inline uint32_t top_of(const Tops& t, int64_t slice, int which) {
  if (t.parts == 1) return t.at[slice * kCount + which];
  uint32_t largest = 0;
  for (int64_t i = threadIdx.x; i < t.parts; i += kThreads) largest = max(largest, t.at[i * kCount + which]);
  return block_max(largest);
}

// Blocks walk long runs of one slice, from the end: what is read last is in the cache for who walks from the beginning.
template <typename Value>
__global__ void __launch_bounds__(kThreads) top_of_runs(Slices s, int64_t blocks_per_run, Value value, uint32_t* top) {
  const int64_t run = blockIdx.x / blocks_per_run, part = blockIdx.x % blocks_per_run, begin = run * s.inner;
  const int64_t step = blocks_per_run * kThreads * kPack, last = (s.inner - 1) / step * step;
  uint32_t largest[Value::kCount] = {};
  for (int64_t i = last + (part * kThreads + threadIdx.x) * kPack; i >= 0; i -= step)
    value.pack(begin, i, s.inner, largest);
  for (int j = 0; j < Value::kCount; ++j) {
    const uint32_t of_block = block_max(largest[j]);
    if (threadIdx.x != 0) continue;
    if (s.slices == 1)
      top[part * Value::kCount + j] = of_block;
    else if (of_block != 0)
      atomicMax(top + run % s.slices * Value::kCount + j, of_block);
  }
}

// Threads walk columns of the (outer, slices * inner) matrix.
template <typename Value>
__global__ void __launch_bounds__(kThreads) top_of_columns(Slices s, Value value, uint32_t* top) {
  const int64_t columns = s.slices * s.inner;
  for (int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x; c < columns; c += int64_t{gridDim.x} * kThreads) {
    uint32_t largest[Value::kCount] = {};
    for (int64_t o = blockIdx.y; o < s.outer; o += gridDim.y) value.one(o * columns + c, largest);
    for (int j = 0; j < Value::kCount; ++j)
      if (largest[j] != 0) atomicMax(top + c / s.inner * Value::kCount + j, largest[j]);
  }
}

template <typename Value>
Tops top_of_slices(Slices s, const Value& value, const Launch& at) {
  if (s.slices == 1) s = whole(s.numel());
  const int64_t most = full_grid(at),
                each = std::max<int64_t>(1, (s.inner + kThreads * kPack - 1) / (kThreads * kPack));
  if (s.slices == 1) {
    const int64_t parts = std::min(each, most);
    auto* top = static_cast<uint32_t*>(at.allocate(parts * Value::kCount * sizeof(uint32_t)));
    top_of_runs<<<static_cast<unsigned>(parts), kThreads, 0, at.stream>>>(s, parts, value, top);
    check(cudaGetLastError(), "largest value");
    return {.at = top, .parts = parts};
  }
  const size_t bytes = std::max<int64_t>(s.slices, 1) * Value::kCount * sizeof(uint32_t);
  auto* top = static_cast<uint32_t*>(at.allocate(bytes));
  check(cudaMemsetAsync(top, 0, bytes, at.stream), "memset");
  const Tops tops = {.at = top, .parts = 1};
  if (s.numel() == 0) return tops;
  if (s.inner >= kLongRun) {
    const int64_t runs = s.outer * s.slices, blocks_per_run = std::max<int64_t>(1, std::min(each, most / runs));
    top_of_runs<<<static_cast<unsigned>(runs * blocks_per_run), kThreads, 0, at.stream>>>(s, blocks_per_run, value,
                                                                                          top);
  } else {
    const int64_t across = std::min((s.slices * s.inner + kThreads - 1) / kThreads, most);
    const int64_t down = std::clamp<int64_t>(most / across, 1, std::min<int64_t>(s.outer, 65535));
    top_of_columns<<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), kThreads, 0, at.stream>>>(
        s, value, top);
  }
  check(cudaGetLastError(), "largest value");
  return tops;
}

struct Magnitude {
  static constexpr int kCount = 1;
  FloatRuns x;
  bool wide;
  __device__ void one(int64_t i, uint32_t* top) const { *top = max(*top, float_bits(x.origin(i)[i]) & 0x7fffffffu); }
  __device__ void pack(int64_t begin, int64_t i, int64_t n, uint32_t* top) const {
    const Pack<float> p = load(x.origin(begin + i) + begin, i, n, wide && begin % kPack == 0);
#pragma unroll
    for (int j = 0; j < kPack; ++j) *top = max(*top, float_bits(p.at[j]) & 0x7fffffffu);
  }
};

struct Reach {
  static constexpr int kCount = 2;
  const float* x;
  bool wide;
  __device__ static void include(float value, uint32_t* top) {
    Ends ends = {.below = top[0], .above = top[1]};
    widen(ends, float_bits(value));
    top[0] = ends.below, top[1] = ends.above;
  }
  __device__ void one(int64_t i, uint32_t* top) const { include(x[i], top); }
  __device__ void pack(int64_t begin, int64_t i, int64_t n, uint32_t* top) const {
    const Pack<float> p = load(x + begin, i, n, wide && begin % kPack == 0);
#pragma unroll
    for (int j = 0; j < kPack; ++j) include(p.at[j], top);
  }
};

template <typename Code>
struct Exponent {
  static constexpr int kCount = 1;
  const Code* codes;
  Format format;
  __device__ void one(int64_t i, uint32_t* top) const {
    *top = max(*top, static_cast<uint32_t>(format.exponent(codes[i])));
  }
  __device__ void pack(int64_t begin, int64_t i, int64_t n, uint32_t* top) const {
    for (int64_t j = i; j < min(i + kPack, n); ++j) one(begin + j, top);
  }
};

// ---- What is done to each element, or to each slice.

// of(slice, its largest value), for every slice: by one block where that is in several parts; 0 where there are none.
template <typename Of>
__global__ void __launch_bounds__(kThreads) for_tops(Tops tops, int64_t slices, Of of) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = tops.parts > 1 ? 0 : int64_t{blockIdx.x} * kThreads + threadIdx.x; i < slices; i += step) {
    const uint32_t top = tops.at == nullptr ? 0 : top_of<1>(tops, i, 0);
    if (tops.parts == 1 || threadIdx.x == 0) of(i, top);
  }
}
template <typename Of>
void finish(const Tops& tops, int64_t slices, const Of& of, const Launch& at) {
  const unsigned blocks = static_cast<unsigned>(std::clamp<int64_t>((slices + kThreads - 1) / kThreads, 1, 1024));
  for_tops<<<blocks, kThreads, 0, at.stream>>>(tops, slices, of);
  check(cudaGetLastError(), "scales");
}

struct QuantizerScale {
  Quantizer q;
  float* scale;
  __device__ void operator()(int64_t i, uint32_t top) const { scale[i] = bits_float(scale_for(q, top)); }
};
struct LargestMagnitude {
  float* top;
  __device__ void operator()(int64_t, uint32_t found) const { *top = bits_float(found); }
};
struct ScaleToLargest {
  double largest;
  float* scale;
  __device__ void operator()(int64_t, uint32_t found) const { *scale = scale_to(found, largest); }
};

// By one block.
__global__ void __launch_bounds__(kThreads) integer_channels(IntegerGrid g, Tops tops, int64_t slices,
                                                             IntegerChannel* channels, float* scale, int32_t* shifts) {
  uint32_t widest = 0;
  const auto ends_of = [&](int64_t i) { return Ends{.below = top_of<2>(tops, i, 0), .above = top_of<2>(tops, i, 1)}; };
  for (int64_t i = tops.parts > 1 ? 0 : threadIdx.x; i < slices; i += kThreads)
    widest = max(widest, range_of(g, ends_of(i)));
  widest = block_max(widest);
  if (threadIdx.x == 0) *scale = scale_of(g, step_for(g, widest));
  for (int64_t i = tops.parts > 1 ? 0 : threadIdx.x; i < slices; i += kThreads) {
    const IntegerChannel c = channel_of(g, ends_of(i), widest);
    channels[i] = c, shifts[i] = c.shift;
  }
}

// Codes of int8 or int16, or as floats what they stand for.
template <typename Out>
struct Integers {
  const int64_t* rng;
  const IntegerChannel* channels;
  const float* scale;
  RandomState random;
  IntegerChannel channel;

  __device__ void enter(int64_t slice) {
    random = decode_random_state(rng);
    channel = channels[slice];
  }
  __device__ Out operator()(float value, int64_t i) const {
    const float steps = in_steps(channel, value);
    if constexpr (std::is_same_v<Out, float>)
      return integer_value(channel, steps, *scale);
    else
      return static_cast<Out>(integer_code(
          channel, rng != nullptr ? round_stochastic(steps, philox_u24(random, i)) : round_half_even(steps)));
  }
};

template <bool kE5M2>
struct ToFloat8 {
  const float* scale;
  float unit;

  __device__ void enter(int64_t) { unit = *scale; }
  __device__ uint8_t operator()(float value, int64_t) const {
    return static_cast<uint8_t>(to_float8(e4m3_or_e5m2(kE5M2), div(value, unit)));
  }
};

template <bool kE5M2>
struct FromFloat8 {
  const float* scale;
  float unit;

  __device__ void enter(int64_t) { unit = *scale; }
  __device__ float operator()(uint8_t code, int64_t) const { return float8_value(e4m3_or_e5m2(kE5M2), code, unit); }
};

// Codes, or what they stand for (Out: float).
template <typename Code, typename Out, bool kDraws>
struct Quantize {
  static constexpr bool kValues = std::is_same_v<Out, float>;
  Quantizer q;
  const int64_t* rng;
  Tops tops;     // of one slice whose scale is still to be found; of several slices none
  float* scale;  // where it goes, or where those of slices are
  RandomState random;
  uint32_t bits;
  const float* value_of;

  __device__ void begin() {
    if (tops.at == nullptr) return;
    bits = scale_for(q, top_of<1>(tops, 0, 0));
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale = bits_float(bits);
    if constexpr (kValues && sizeof(Code) == 1) {
      __shared__ float table[kThreads];
      table[threadIdx.x] = dequantize_one(q.format, q.values, threadIdx.x & (2 * q.format.sign_bit() - 1), bits);
      __syncthreads();
      value_of = table;
    }
  }
  __device__ void enter(int64_t slice) {
    if constexpr (kDraws) random = decode_random_state(rng);
    if (tops.at == nullptr) bits = float_bits(scale[slice]);
  }
  __device__ Code code(float value, int64_t i) const {
    if (scale_is_nan(bits)) return 0;  // no value survives
    const int k = scale_exponent(bits);
    if constexpr (kDraws)
      return static_cast<Code>(quantize_one(q, float_bits(value), k, philox_u24(random, i)));
    else
      return static_cast<Code>(nearest_code(q, value, k));
  }
  __device__ Out operator()(float value, int64_t i) const {
    const Code c = code(value, i);
    if constexpr (!kValues)
      return c;
    else if constexpr (sizeof(Code) == 1)
      return value_of[c];
    else
      return dequantize_one(q.format, q.values, c, bits);
  }
};

struct Dequantize {
  Format format;
  const uint32_t* values;
  const float* scale;
  uint32_t bits;

  __device__ void enter(int64_t slice) { bits = float_bits(scale[slice]); }
  __device__ float operator()(int code, int64_t) const { return dequantize_one(format, values, code, bits); }
};

// Codes of 8 bits at most, of one scale: what each stands for is looked up.
constexpr int kQuad = 4;    // codes of a thread at a time
constexpr int kRun = 4096;  // codes of a contiguous tensor that are a row

__global__ void __launch_bounds__(kThreads)
    dequantize_rows(Format format, const uint32_t* values, ByteRows rows, const float* scale, float* x, bool wide) {
  __shared__ float value_of[kThreads];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  value_of[thread] = dequantize_one(format, values, thread & (2 * format.sign_bit() - 1), float_bits(*scale));
  __syncthreads();
  const int64_t count = rows.count();
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < count;
       row += int64_t{gridDim.x} * blockDim.y) {
    const uint8_t* from = rows.codes + rows.place(row);
    float* to = x + row * rows.length;
    const int length = static_cast<int>(min(int64_t{rows.length}, rows.n - row * rows.length));
#pragma unroll 4
    for (int first = threadIdx.x * kQuad; first < length; first += blockDim.x * kQuad) {
      if (wide && first + kQuad <= length) {
        const uchar4 c = *reinterpret_cast<const uchar4*>(from + first);
        *reinterpret_cast<float4*>(to + first) = {value_of[c.x], value_of[c.y], value_of[c.z], value_of[c.w]};
      } else {
        for (int i = first; i < min(first + kQuad, length); ++i) to[i] = value_of[from[i]];
      }
    }
  }
}

template <typename Code>
struct Rescale {
  Quantizer q;
  const int64_t* rng;
  const float *old_scale, *new_scale;
  RandomState random;
  uint32_t from, to;

  __device__ void enter(int64_t slice) {
    random = decode_random_state(rng);
    from = float_bits(old_scale[slice]), to = float_bits(new_scale[slice]);
  }
  __device__ Code operator()(int c, int64_t i) const {
    if (scale_is_nan(from) || scale_is_nan(to)) return static_cast<Code>(c);
    const bool draws = q.underflow == Underflow::stochastic;
    return static_cast<Code>(
        rescale_code(q, c, scale_exponent(from), scale_exponent(to), draws ? philox_u24(random, i) : 0));
  }
};

struct Uniform {
  const int64_t* rng;
  float* u;
  bool wide;
  RandomState random;

  __device__ void enter(int64_t) { random = decode_random_state(rng); }
  __device__ void one(int64_t i) { u[i] = unit_float(philox_u24(random, i)); }
  __device__ void pack(int64_t first, int64_t n) {
    Pack<float> p;
#pragma unroll
    for (int j = 0; j < kPack; ++j) p.at[j] = unit_float(philox_u24(random, first + j));
    store(u, first, n, wide, p);
  }
};

struct RoundToPowers {
  PowerRounding rounding;
  const float* top;
  const int64_t* rng;
  RandomState random;
  float largest, unit;

  __device__ void enter(int64_t) {
    random = decode_random_state(rng);
    largest = rounding.largest();
    unit = *top / largest;
  }
  __device__ float operator()(float from, int64_t i) const {
    return round_to_power(rounding, largest, unit, from, rounding.draws() ? unit_float(philox_u24(random, i)) : 0.0f);
  }
};

struct ForwardScale {
  Coarsening c;
  const float* update_scale;
  float* scale;
  __device__ uint32_t bits(int64_t i, uint32_t top) const {
    const uint32_t old = float_bits(update_scale[i]);
    if (scale_is_nan(old)) return kNanBits;
    return scale_bits(forward_scale(c.forward, c.update, c.shift, static_cast<int>(top), scale_exponent(old)));
  }
  __device__ void operator()(int64_t i, uint32_t top) const { scale[i] = bits_float(bits(i, top)); }
};

template <typename To>
struct Coarsen {
  Coarsening coarsening;
  ForwardScale scale;
  bool finds;  // the scale, of one slice
  Tops tops;   // of which it is made; none where it is kept
  uint32_t to;

  __device__ void begin() {
    if (!finds) return;
    to = scale.bits(0, tops.at == nullptr ? 0 : top_of<1>(tops, 0, 0));
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale.scale = bits_float(to);
  }
  __device__ void enter(int64_t slice) {
    const uint32_t from = float_bits(scale.update_scale[slice]);
    if (!finds) to = float_bits(scale.scale[slice]);
    coarsening.offset = coarsening.forward.gamma * (scale_is_nan(from) ? 0 : scale_exponent(from) - scale_exponent(to));
  }
  __device__ To operator()(int code, int64_t) const { return static_cast<To>(coarsen_code(coarsening, code)); }
};

template <typename Code>
struct Madam {
  Quantizer q;
  const float* hyper;
  bool stochastic;
  const int64_t* rng;
  Code* codes;
  const float *scale, *grad;
  float* moment;
  const float* cap;
  bool wide;
  RandomState random;
  MadamStep step;
  int e_cap;

  __device__ void enter(int64_t slice) {
    random = decode_random_state(rng);
    step = decode_madam(hyper, stochastic);
    e_cap = cap_code(q, cap[slice], float_bits(scale[slice]));
  }
  __device__ Code code(int c, float g, float& v, int64_t i) const {
    v = madam_moment(step, v, g);
    const float distance = madam_distance(step, v, g);
    const int by = stochastic ? round_stochastic(distance, philox_u24(random, i)) : round_half_even(distance);
    return static_cast<Code>(madam_code(q.format, c, by, e_cap));
  }
  __device__ void one(int64_t i) { codes[i] = code(codes[i], grad[i], moment[i], i); }
  __device__ void pack(int64_t first, int64_t n) {
    Pack<Code> c = load(codes, first, n, wide);
    const Pack<float> g = load(grad, first, n, wide);
    Pack<float> v = load(moment, first, n, wide);
#pragma unroll
    for (int j = 0; j < kPack; ++j) c.at[j] = code(c.at[j], g.at[j], v.at[j], first + j);
    store(codes, first, n, wide, c);
    store(moment, first, n, wide, v);
  }
};

}  // namespace

std::vector<int32_t> pack(const QuantizerTables& t) {
  std::vector<int32_t> all(t.thresholds.begin(), t.thresholds.end());
  all.insert(all.end(), t.buckets.begin(), t.buckets.end());
  all.insert(all.end(), t.values.begin(), t.values.end());
  return all;
}

Quantizer view(const int32_t* packed, const QuantizerTables& t, const Format& f, Rounding r, Underflow u) {
  Quantizer q = t.view(f, r, u);
  q.thresholds = reinterpret_cast<const uint32_t*>(packed);
  q.buckets = packed + t.thresholds.size();
  q.values = reinterpret_cast<const uint32_t*>(q.buckets + t.buckets.size());
  return q;
}

namespace {

Tops magnitude_of(const float* x, int64_t n, const Launch& at) {
  return top_of_slices(whole(n), Magnitude{.x = {.x = x}, .wide = aligned(x, sizeof(float))}, at);
}

// In two kernels where there is one slice, whose scale the second one finds.
template <typename Code, typename Out>
void quantize_to(const Quantizer& q, const int64_t* rng, const FloatRuns& x, const Slices& s, Out* out, float* scale,
                 const Launch& at) {
  Tops tops = top_of_slices(s, Magnitude{.x = x, .wide = aligned(x)}, at);
  if (s.slices != 1 || s.numel() == 0) {
    finish(tops, s.slices, QuantizerScale{.q = q, .scale = scale}, at);
    tops = {.at = nullptr, .parts = 0};
  }
  const auto quantize = [&](auto of) {
    of.q = q, of.rng = rng, of.tops = tops, of.scale = scale;
    map(s, x, out, of, at);
  };
  if (q.rounding == Rounding::stochastic || q.underflow == Underflow::stochastic)
    quantize(Quantize<Code, Out, true>{});
  else
    quantize(Quantize<Code, Out, false>{});
}

}  // namespace

void quantize(const Quantizer& q, const int64_t* rng, const FloatRuns& x, const Slices& s, void* codes, float* scale,
              const Launch& at) {
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    quantize_to<Code>(q, rng, x, s, static_cast<Code*>(codes), scale, at);
  });
}

void quantized_values(const Quantizer& q, const int64_t* rng, const FloatRuns& x, int64_t n, float* values,
                      float* scale, const Launch& at) {
  with_code_type(q.format, [&](auto type) { quantize_to<decltype(type)>(q, rng, x, whole(n), values, scale, at); });
}

void quantizer_scale(const Quantizer& q, const float* x, int64_t n, float* scale, const Launch& at) {
  finish(magnitude_of(x, n, at), 1, QuantizerScale{.q = q, .scale = scale}, at);
}

void largest_magnitude(const float* x, int64_t n, float* top, const Launch& at) {
  finish(magnitude_of(x, n, at), 1, LargestMagnitude{.top = top}, at);
}

void scale_to_largest(const float* x, int64_t n, double largest, float* scale, const Launch& at) {
  finish(magnitude_of(x, n, at), 1, ScaleToLargest{.largest = largest, .scale = scale}, at);
}

void quantize_integers(const IntegerGrid& g, bool values, const int64_t* rng, const float* x, const Slices& s,
                       void* out, float* scale, int32_t* shifts, const Launch& at) {
  const Tops tops = top_of_slices(s, Reach{.x = x, .wide = aligned(x, sizeof(float))}, at);
  const size_t bytes = std::max<int64_t>(s.slices, 1) * sizeof(IntegerChannel);
  auto* channels = static_cast<IntegerChannel*>(at.allocate(bytes));
  integer_channels<<<1, kThreads, 0, at.stream>>>(g, tops, s.slices, channels, scale, shifts);
  check(cudaGetLastError(), "integer_channels");
  const auto as = [&](auto* typed) {
    using Out = std::remove_pointer_t<decltype(typed)>;
    map(s, x, typed, Integers<Out>{.rng = rng, .channels = channels, .scale = scale}, at);
  };
  if (values)
    as(static_cast<float*>(out));
  else if (g.largest() < 128)
    as(static_cast<int8_t*>(out));
  else
    as(static_cast<int16_t*>(out));
}

void quantize_float8(bool e5m2, const float* scale, const float* x, int64_t n, uint8_t* codes, const Launch& at) {
  if (e5m2)
    map(whole(n), x, codes, ToFloat8<true>{.scale = scale}, at);
  else
    map(whole(n), x, codes, ToFloat8<false>{.scale = scale}, at);
}

void dequantize_float8(bool e5m2, const uint8_t* codes, const float* scale, int64_t n, float* x, const Launch& at) {
  if (e5m2)
    map(whole(n), codes, x, FromFloat8<true>{.scale = scale}, at);
  else
    map(whole(n), codes, x, FromFloat8<false>{.scale = scale}, at);
}

void dequantize(const CodeView& codes, const Quantizer& q, const float* scale, const Slices& s, float* x,
                const Launch& at) {
  with_code_type(codes.format, [&](auto type) {
    const auto* from = static_cast<const decltype(type)*>(codes.data);
    map(s, from, x, Dequantize{.format = codes.format, .values = q.values, .scale = scale}, at);
  });
}

void dequantize(const ByteRows& rows, const Format& format, const Quantizer& q, const float* scale, float* x,
                const Launch& at) {
  if (rows.n == 0) return;
  const bool wide = aligned(x, sizeof(float)) && reinterpret_cast<uintptr_t>(rows.codes) % kQuad == 0 &&
                    rows.length % kQuad == 0 && rows.outer_stride % kQuad == 0 && rows.inner_stride % kQuad == 0;
  dim3 block(kThreads);
  while (block.x > 1 && block.x / 2 * kQuad >= rows.length) block.x /= 2;
  block.y = kThreads / block.x;
  const int64_t grid = std::min((rows.count() + block.y - 1) / block.y, resident_blocks(dequantize_rows, at));
  dequantize_rows<<<static_cast<unsigned>(grid), block, 0, at.stream>>>(format, q.values, rows, scale, x, wide);
  check(cudaGetLastError(), "dequantize_rows");
}

ByteRows contiguous_rows(const uint8_t* codes, int64_t n) {
  return {.codes = codes, .n = n, .length = kRun, .outer_stride = kRun};
}

void rescale(const Quantizer& q, const int64_t* rng, const void* codes, const float* old_scale, const float* new_scale,
             const Slices& s, void* out, const Launch& at) {
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    const Rescale<Code> of = {.q = q, .rng = rng, .old_scale = old_scale, .new_scale = new_scale};
    map(s, static_cast<const Code*>(codes), static_cast<Code*>(out), of, at);
  });
}

void uniform(const int64_t* rng, int64_t n, float* u, const Launch& at) {
  run(whole(n), Uniform{.rng = rng, .u = u, .wide = aligned(u, sizeof(float))}, at);
}

void round_to_powers(const PowerRounding& r, const float* top, const int64_t* rng, const float* x, int64_t n,
                     float* out, const Launch& at) {
  map(whole(n), x, out, RoundToPowers{.rounding = r, .top = top, .rng = rng}, at);
}

void forward_codes(const Format& forward, const CodeView& update, const float* update_scale, const Slices& s,
                   void* codes, float* scale, const Launch& at) {
  const int shift = log2_exact(update.format.gamma) - log2_exact(forward.gamma);
  with_code_type(update.format, [&](auto from_type) {
    with_code_type(forward, [&](auto to_type) {
      using From = decltype(from_type);
      using To = decltype(to_type);
      const auto* from = static_cast<const From*>(update.data);
      const Exponent<From> exponent = {.codes = from, .format = update.format};
      const Coarsening coarsening = {.update = update.format, .forward = forward, .shift = shift, .offset = 0};
      const ForwardScale of = {.c = coarsening, .update_scale = update_scale, .scale = scale};
      Tops tops = {.at = nullptr, .parts = 1};  // where nothing is read scales are kept
      if (spans_fewer_octaves(forward, update.format)) tops = top_of_slices(s, exponent, at);
      const bool finds = s.slices == 1 && s.numel() > 0;
      if (!finds) finish(tops, s.slices, of, at);
      const Coarsen<To> coarsen = {.coarsening = coarsening, .scale = of, .finds = finds, .tops = tops};
      map(s, from, static_cast<To*>(codes), coarsen, at);
    });
  });
}

void madam_step(const Quantizer& q, const float* hyper, bool stochastic, const int64_t* rng, void* codes,
                const float* scale, const float* grad, float* moment, const float* cap, const Slices& s,
                const Launch& at) {
  with_code_type(q.format, [&](auto type) {
    using Code = decltype(type);
    const bool wide = aligned(codes, sizeof(Code)) && aligned(grad, sizeof(float)) && aligned(moment, sizeof(float));
    run(s,
        Madam<Code>{.q = q,
                    .hyper = hyper,
                    .stochastic = stochastic,
                    .rng = rng,
                    .codes = static_cast<Code*>(codes),
                    .scale = scale,
                    .grad = grad,
                    .moment = moment,
                    .cap = cap,
                    .wide = wide},
        at);
  });
}

}  // namespace lns::cuda
