// The kernels for Armv8.2 and later with the dot-product instructions (Neoverse, Graviton since 2, Grace, Apple's since
// M1): the portable ones, which compilers lower to NEON, and the register look-up of permute.h.
#include "cpu/kernels.h"
#include "cpu/permute.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#pragma GCC optimize("no-schedule-insns")  // else GCC 12 keeps half of the sums in memory
#endif

namespace lns::cpu {

namespace baseline {
extern const Kernels table;
}

namespace neon_dotprod {
namespace {

#include "cpu/permute_pack.inc"

using Tables = PermuteTables<uint8_t>;

// UDOT multiplies unsigned bytes only, and SDOT signed ones, but constants need eight bits and weights a sign. So
// weights are kept this much too large, and as many times the sum of the constants is taken off at the end.
constexpr int kBias = 1 << (Tables::kWindowBits - 1);
constexpr int kVectors = kColumns / 4;  // of 16 columns
constexpr int kUnits = 16;              // remainders that one table register tells apart
static_assert(2 * Tables::kSlots == 64, "TBL takes four registers");

// Of each of four columns: its windows' sums, then the sum of the constants.
template <int Sums>
using ColumnSums = uint32x4_t[Sums + 1];

// The windows of permute.h.
template <int Sums>
struct Windows {
  alignas(64) uint8_t weights[Sums][2 * Tables::kSlots];
  uint8x16_t units, remainder;
  int8x16_t octave;

  explicit Windows(const Tables& t)
      : units(vld1q_u8(t.units)),
        remainder(vdupq_n_u8(static_cast<uint8_t>((1 << t.log2_gamma) - 1))),
        octave(vdupq_n_s8(static_cast<int8_t>(-t.log2_gamma))) {
    for (int j = 0; j < Sums; ++j)
      for (int i = 0; i < 2 * Tables::kSlots; ++i) weights[j][i] = static_cast<uint8_t>(t.weights[j][i] + kBias);
  }
  // Adds four lanes of a row times 16 columns'. A window's table serves all of them at once: four registers more than
  // the sums leave free.
  void add(uint8x16_t row, uint8x16_t row_sign, const uint8_t* columns, ColumnSums<Sums>* sums) const {
    uint8x16_t unit[kVectors], slot[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const uint8x16_t product = vqsubq_u8(row, vld1q_u8(columns + 16 * v));
      const uint8x16_t sign = veorq_u8(row_sign, vld1q_u8(columns + 64 + 16 * v));
      slot[v] = vorrq_u8(vshlq_u8(product, octave), sign);
      unit[v] = vqtbl1q_u8(units, vandq_u8(product, remainder));
      sums[v][Sums] = vdotq_u32(sums[v][Sums], unit[v], vdupq_n_u8(1));
    }
#pragma GCC unroll 4
    for (int j = 0; j < Sums; ++j) {
      const uint8x16x4_t table = vld1q_u8_x4(weights[j]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[v][j] = vdotq_u32(sums[v][j], unit[v], vqtbl4q_u8(table, slot[v]));
    }
  }
};

// Closes the vectors of 16 columns: acc = narrow(acc + align(sum)). Returns how many overflowed, if counting.
struct Closing {
  const Tables& t;
  const Accumulator<int64_t>& a;
  bool counting;
  VectorShifts shifts;

  // Where 32 bits hold all.
  template <int Sums>
  int64_t narrow(const ColumnSums<Sums>* sums, int32_t* acc) const {
    const int32x4_t align = vdupq_n_s32(-a.fraction_bits), half = vdupq_n_s32(static_cast<int32_t>(a.half));
    const int32x4_t low = vdupq_n_s32(static_cast<int32_t>(a.low)), high = vdupq_n_s32(static_cast<int32_t>(a.high));
    const int32x4_t drop = vdupq_n_s32(32 - a.acc_bits);
    uint32x4_t equal = vdupq_n_u32(0);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      uint32x4_t y = sums[v][0];
#pragma GCC unroll 4
      for (int j = 1; j < Sums; ++j) y = vaddq_u32(y, vshlq_n_u32(sums[v][j], Tables::kWindowBits * j));
      y = vmlsq_n_u32(y, sums[v][Sums], bias<Sums>());
      const int32x4_t aligned = vreinterpretq_s32_u32(vshlq_u32(y, vdupq_n_s32(t.first_shift)));
      const int32x4_t sum = vaddq_s32(vld1q_s32(acc + 4 * v), vshlq_s32(vaddq_s32(aligned, half), align));
      const int32x4_t kept = a.overflow == Overflow::saturate ? vminq_s32(vmaxq_s32(sum, low), high)
                                                              : vshlq_s32(vshlq_s32(sum, drop), vnegq_s32(drop));
      equal = vsubq_u32(equal, vceqq_s32(sum, kept));  // all ones where they are
      vst1q_s32(acc + 4 * v, kept);
    }
    return counting ? kColumns - vaddvq_u32(equal) : 0;
  }

  // Where they do not, or the vector has shifts.
  template <int Sums>
  int64_t wide(const ColumnSums<Sums>* sums, int64_t row, int32_t* acc) const {
    int64_t overflows = 0;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      uint32_t columns[Sums + 1][4];
#pragma GCC unroll 5
      for (int j = 0; j <= Sums; ++j) vst1q_u32(columns[j], sums[v][j]);
      for (int c = 0; c < 4; ++c, ++acc) {
        int64_t y = 0;
        for (int j = 0; j < Sums; ++j)
          y += (int64_t{columns[j][c]} - kBias * int64_t{columns[Sums][c]}) * (1 << j * Tables::kWindowBits);
        y *= int64_t{1} << t.first_shift;
        const int64_t sum =
            *acc + (shifts.rows ? a.shifted(y, shifts.rows[row] + shifts.columns[4 * v + c]) : a.aligned(y));
        overflows += a.overflows(sum);
        *acc = static_cast<int32_t>(a.narrow(sum));
      }
    }
    return counting ? overflows : 0;
  }

 private:
  template <int Sums>
  static constexpr uint32_t bias() {
    uint32_t all = 0;
    for (int j = 0; j < Sums; ++j) all += uint32_t{kBias} << j * Tables::kWindowBits;
    return all;
  }
};

inline uint8x16_t broadcast(const uint8_t* at) {
  uint32_t step;
  __builtin_memcpy(&step, at, sizeof step);
  return vreinterpretq_u8_u32(vdupq_n_u32(step));
}

template <int Sums>
int64_t accumulate_windows(const Tables& t, const PackedRows& rows, const uint8_t* packed, const int* steps,
                           int step_count, const Closing& closing, int32_t* acc) {
  const Windows<Sums> windows(t);
  const bool wide = t.wide || closing.shifts.rows;
  int64_t overflows = 0;
  for (int64_t r = 0; r < rows.rows; ++r, acc += kColumns) {
    ColumnSums<Sums> sums[kVectors] = {};
    for (int i = 0; i < step_count; ++i) {
      const int64_t step = steps[i], at = r * rows.strides.row + step * rows.strides.depth;
      windows.add(broadcast(rows.magnitudes + at), broadcast(rows.signs + at), packed + 128 * step, sums);
    }
    overflows += wide ? closing.wide<Sums>(sums, r, acc) : closing.narrow<Sums>(sums, acc);
  }
  return overflows;
}

// The row path's inner loop, in which GCC spends as many instructions on addresses as on sums where it is left alone.
// Depth 0 stands for `depth`, any number of lanes.
template <int Depth, int DepthStride>
inline void add_rows_of(const uint8_t* codes, int64_t row_stride, int64_t n, int depth, const int32_t* rows,
                        int32_t* state) {
  for (int64_t i = 0; i < n; ++i, codes += row_stride, state += kColumns) {
    int32x4x4_t sum = vld1q_s32_x4(state);
#pragma GCC unroll 8
    for (int d = 0; d < (Depth ? Depth : depth); ++d) {
      const int32x4x4_t row = vld1q_s32_x4(rows + (d * size_t{kLaneCodes} + codes[d * DepthStride]) * kColumns);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum.val[v] = vaddq_s32(sum.val[v], row.val[v]);
    }
    vst1q_s32_x4(state, sum);
  }
}

void add_rows(const uint8_t* codes, TileStrides strides, int64_t n, int depth, const int32_t* rows, int32_t* state) {
  const auto add = strides.depth == 1
                       ? (depth == kRowDepth ? add_rows_of<kRowDepth, 1> : add_rows_of<0, 1>)
                       : (depth == kRowDepth ? add_rows_of<kRowDepth, kTileRows> : add_rows_of<0, kTileRows>);
  add(codes, strides.row, n, depth, rows, state);
}

int64_t accumulate(const Tables& t, const PackedRows& rows, const uint8_t* packed, const int* steps, int step_count,
                   const Accumulator<int64_t>& a, const VectorShifts& shifts, bool counting, int32_t* acc) {
  const Closing closing = {.t = t, .a = a, .counting = counting, .shifts = shifts};
  const auto run = [&](auto sums) {
    return accumulate_windows<decltype(sums)::value>(t, rows, packed, steps, step_count, closing, acc);
  };
  switch (t.sums) {
    case 1:
      return run(std::integral_constant<int, 1>());
    case 2:
      return run(std::integral_constant<int, 2>());
    case 3:
      return run(std::integral_constant<int, 3>());
    default:
      return run(std::integral_constant<int, 4>());
  }
}

constexpr PermuteKernels<uint8_t> permute = {
    .takes = [](const Tables& t) { return t.halves == 0 && t.log2_gamma <= log2_exact(kUnits); },
    .most_rows = 256,
    .pack_rows = pack_rows<uint8_t>,
    .pack_lines = pack_lines<uint8_t>,
    .pack_columns = pack_columns<uint8_t>,
    .accumulate = accumulate};

}  // namespace

const Kernels& table() {
  static const Kernels kernels = [] {
    Kernels k = baseline::table;
    k.name = "neon_dotprod";
    k.permute8 = &permute;
    k.add_rows = add_rows;
    return k;
  }();
  return kernels;
}

}  // namespace neon_dotprod
}  // namespace lns::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __aarch64__
