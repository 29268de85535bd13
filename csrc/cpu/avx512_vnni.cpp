// The kernels for x86-64 with AVX-512 and its VBMI and VNNI parts (Intel since Ice Lake, AMD since Zen 4): those of
// AVX-512, and the register look-up of permute.h.
#include "cpu/kernels.h"
#include "cpu/permute.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own headers, where intrinsics are inlined
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(                                                                          \
    __attribute__((target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni"))), \
    apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,prefer-vector-width=512")
#endif

namespace lns::cpu {

namespace avx512 {
extern const Kernels table;
}

namespace avx512_vnni {
namespace {

// The two forms of permute.h with their tables in registers: each turns products' indices and signs into `kSums` sums.
template <typename Lane, int Sums>
struct Windows;

template <int Sums>
struct Windows<uint8_t, Sums> {
  using Lane = uint8_t;
  static constexpr int kSums = Sums, kSpacing = PermuteTables<Lane>::kWindowBits;
  static constexpr int kRows = Sums == 4 ? 3 : 4;  // of a block: as many as the registers hold
  __m512i octave_shift, slot_mask, units, weights[Sums];

  explicit Windows(const PermuteTables<Lane>& t)
      : octave_shift(_mm512_set1_epi16(static_cast<int16_t>(t.log2_gamma))),
        slot_mask(_mm512_set1_epi8(static_cast<int8_t>(t.slot_mask))),
        units(_mm512_load_si512(t.units)) {
    for (int j = 0; j < Sums; ++j) weights[j] = _mm512_load_si512(t.weights[j]);
  }
  void add(__m512i product, __m512i sign, __m512i* sums) const {
    // slot_mask ? octave : sign, bit by bit
    const __m512i index = _mm512_ternarylogic_epi32(slot_mask, _mm512_srlv_epi16(product, octave_shift), sign, 0xca);
    const __m512i unit = _mm512_permutexvar_epi8(product, units);
#pragma GCC unroll 4
    for (int j = 0; j < Sums; ++j)
      sums[j] = _mm512_dpbusd_epi32(sums[j], unit, _mm512_permutexvar_epi8(index, weights[j]));
  }
};

template <int Sums>
struct Windows<int16_t, Sums> {
  using Lane = int16_t;
  static constexpr int kSums = Sums, kSpacing = PermuteTables<Lane>::kWindowBits;
  static constexpr int kRows = 4;
  __m512i octave_shift, slot_mask, units[2], weights[Sums][2];

  explicit Windows(const PermuteTables<Lane>& t)
      : octave_shift(_mm512_set1_epi16(static_cast<int16_t>(t.log2_gamma))),
        slot_mask(_mm512_set1_epi16(static_cast<int16_t>(t.slot_mask))),
        units{_mm512_load_si512(t.units), _mm512_load_si512(t.units + 64)} {
    for (int j = 0; j < Sums; ++j)
      for (int half = 0; half < 2; ++half) weights[j][half] = _mm512_load_si512(t.weights[j] + 32 * half);
  }
  void add(__m512i product, __m512i sign, __m512i* sums) const {
    const __m512i index = _mm512_ternarylogic_epi32(slot_mask, _mm512_srlv_epi16(product, octave_shift), sign, 0xca);
    // The low byte of a word holds the remainder; the high byte of the unit stays 0.
    const __m512i unit = _mm512_maskz_permutex2var_epi8(0x5555555555555555u, units[0], product, units[1]);
#pragma GCC unroll 4
    for (int j = 0; j < Sums; ++j)
      sums[j] = _mm512_dpwssd_epi32(sums[j], unit, _mm512_permutex2var_epi16(weights[j][0], index, weights[j][1]));
  }
};

// `Halves` as in PermuteTables: two bits a plane.
template <int Sums, unsigned Halves>
struct BytePlanes {
  using Lane = uint8_t;
  static constexpr int kSums = Sums, kSpacing = 8;
  static constexpr int kRows = __builtin_popcount(Halves) <= 5 ? 3 : 2;
  static constexpr bool lower(int j) { return Halves >> 2 * j & 1; }
  static constexpr bool upper(int j) { return Halves >> 2 * j & 2; }
  __m512i planes[Sums][4];

  explicit BytePlanes(const PermuteTables<Lane>& t) {
    for (int j = 0; j < Sums; ++j)
      for (int i = 0; i < 4; ++i) planes[j][i] = _mm512_load_si512(t.planes[j] + 64 * i);
  }
  void add(__m512i product, __m512i sign, __m512i* sums) const {
    const __mmask64 in_upper = _mm512_movepi8_mask(product);
#pragma GCC unroll 4
    for (int j = 0; j < Sums; ++j) {
      const __m512i* p = planes[j];
      __m512i bytes;
      if (lower(j) && upper(j))
        bytes = _mm512_mask_blend_epi8(in_upper, _mm512_permutex2var_epi8(p[0], product, p[1]),
                                       _mm512_permutex2var_epi8(p[2], product, p[3]));
      else if (lower(j))
        bytes = _mm512_maskz_permutex2var_epi8(~in_upper, p[0], product, p[1]);
      else
        bytes = _mm512_maskz_permutex2var_epi8(in_upper, p[2], product, p[3]);
      sums[j] = _mm512_dpbusd_epi32(sums[j], bytes, sign);
    }
  }
};

inline __m512i difference(uint8_t, __m512i row, __m512i column) { return _mm512_subs_epu8(row, column); }
inline __m512i difference(int16_t, __m512i row, __m512i column) { return _mm512_subs_epu16(row, column); }
inline __m512i broadcast(const uint8_t* at) {
  int32_t step;
  __builtin_memcpy(&step, at, sizeof step);
  return _mm512_set1_epi32(step);
}

// Closes 16 vectors' sums: acc[16] = narrow(acc + align(sum)). Returns how many overflowed, if counting. Accumulator in
// intrinsics, because the sums stand in registers.
template <typename Tables>
struct Closing {
  const Tables& t;
  const Accumulator<int64_t>& a;
  bool counting;

  VectorShifts shifts;
  int round = a.half != 0;

  // Y as units of the accumulator, by Accumulator's aligned or shifted.
  template <bool Shifted>
  __m512i aligned(__m512i y, int64_t row) const {
    if (!Shifted)
      return _mm512_sra_epi32(_mm512_add_epi32(y, _mm512_set1_epi32(static_cast<int32_t>(a.half))),
                              count(a.fraction_bits));
    y = _mm512_add_epi32(_mm512_srav_epi32(y, drop(row)), _mm512_set1_epi32(round));
    return _mm512_sra_epi32(y, count(round));
  }
  __m512i drop(int64_t row) const {
    return _mm512_add_epi32(_mm512_loadu_si512(shifts.columns),
                            _mm512_set1_epi32(a.fraction_bits - round + shifts.rows[row]));
  }

  template <typename Form, bool Shifted>
  int narrow(const __m512i* sums, int64_t row, int32_t* acc) const {
    __m512i y = sums[0];
#pragma GCC unroll 4
    for (int j = 1; j < Form::kSums; ++j) y = _mm512_add_epi32(y, _mm512_slli_epi32(sums[j], j * Form::kSpacing));
    y = aligned<Shifted>(_mm512_sll_epi32(y, count(t.first_shift)), row);
    const __m512i sum = _mm512_add_epi32(_mm512_load_si512(acc), y);
    __m512i kept;
    if (a.overflow == Overflow::saturate) {
      kept = _mm512_max_epi32(_mm512_set1_epi32(static_cast<int32_t>(a.low)), sum);
      kept = _mm512_min_epi32(_mm512_set1_epi32(static_cast<int32_t>(a.high)), kept);
    } else {
      kept = _mm512_sra_epi32(_mm512_sll_epi32(sum, count(32 - a.acc_bits)), count(32 - a.acc_bits));
    }
    _mm512_store_si512(acc, kept);
    return counting ? __builtin_popcount(_mm512_cmpneq_epi32_mask(sum, kept)) : 0;
  }

  template <typename Form, bool Shifted>
  int wide(const __m512i* sums, int64_t row, int32_t* acc) const {
    constexpr int kLow = Tables::kLowSums;
    __m512i parts[2] = {sums[0], _mm512_setzero_si512()};
#pragma GCC unroll 4
    for (int j = 1; j < Form::kSums; ++j)
      parts[j / kLow] = _mm512_add_epi32(parts[j / kLow], _mm512_slli_epi32(sums[j], j % kLow * Form::kSpacing));
    const int shifts[2] = {t.first_shift, t.first_shift + kLow * Form::kSpacing};
    int overflows = 0;
    for (int half = 0; half < 2; ++half) {
      __m256i* at = reinterpret_cast<__m256i*>(acc) + half;
      __m512i y = _mm512_set1_epi64(Shifted ? 0 : a.half);
      for (int part = 0; part < 2; ++part) {
        const __m256i low = half ? _mm512_extracti64x4_epi64(parts[part], 1) : _mm512_castsi512_si256(parts[part]);
        y = _mm512_add_epi64(y, _mm512_sll_epi64(_mm512_cvtepi32_epi64(low), count(shifts[part])));
      }
      if (Shifted) {
        const __m512i both = drop(row);
        const __m256i own = half ? _mm512_extracti64x4_epi64(both, 1) : _mm512_castsi512_si256(both);
        y = _mm512_add_epi64(_mm512_srav_epi64(y, _mm512_cvtepi32_epi64(own)), _mm512_set1_epi64(round));
        y = _mm512_sra_epi64(y, count(round));
      } else {
        y = _mm512_sra_epi64(y, count(a.fraction_bits));
      }
      const __m512i sum = _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm256_load_si256(at)), y);
      __m512i kept;
      if (a.overflow == Overflow::saturate)
        kept = _mm512_min_epi64(_mm512_set1_epi64(a.high), _mm512_max_epi64(_mm512_set1_epi64(a.low), sum));
      else
        kept = _mm512_sra_epi64(_mm512_sll_epi64(sum, count(64 - a.acc_bits)), count(64 - a.acc_bits));
      _mm256_store_si256(at, _mm512_cvtepi64_epi32(kept));
      if (counting) overflows += __builtin_popcount(_mm512_cmpneq_epi64_mask(sum, kept));
    }
    return overflows;
  }

  static __m128i count(int shift) { return _mm_cvtsi32_si128(shift); }
};

// The rows of a vector times 16 packed columns, over the steps named.
struct PackedVector {
  const PackedRows& rows;
  const uint8_t* packed;
  const int* steps;
  int step_count;
};

// A block of rows from `row` on, its sums in registers. `Signs`: do any rows have negative lanes?
template <int Rows, bool Wide, bool Signs, bool Shifted, typename Form>
inline __attribute__((always_inline)) int64_t block(const Form& form, const PackedVector& o, int64_t row,
                                                    const Closing<PermuteTables<typename Form::Lane>>& closing,
                                                    int32_t* acc) {
  const TileStrides strides = o.rows.strides;
  const uint8_t *magnitudes = o.rows.magnitudes + row * strides.row, *signs = o.rows.signs + row * strides.row;
  __m512i sums[Rows][Form::kSums];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < Form::kSums; ++j) sums[r][j] = _mm512_setzero_si512();
  for (int i = 0; i < o.step_count; ++i) {
    const int64_t step = o.steps[i];
    const __m512i column = _mm512_load_si512(o.packed + 128 * step);
    const __m512i column_sign = _mm512_load_si512(o.packed + 128 * step + 64);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const int64_t at = step * strides.depth + r * strides.row;
      const __m512i product = difference(typename Form::Lane{}, broadcast(magnitudes + at), column);
      form.add(product, Signs ? _mm512_xor_si512(column_sign, broadcast(signs + at)) : column_sign, sums[r]);
    }
  }
  int64_t overflows = 0;
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    int32_t* to = acc + (row + r) * kColumns;
    overflows += Wide ? closing.template wide<Form, Shifted>(sums[r], row + r, to)
                      : closing.template narrow<Form, Shifted>(sums[r], row + r, to);
  }
  return overflows;
}

template <bool Wide, bool Signs, bool Shifted, typename Form>
int64_t all_blocks(const Form& form, const PackedVector& o, const Closing<PermuteTables<typename Form::Lane>>& closing,
                   int32_t* acc) {
  int64_t row = 0, overflows = 0;
  for (; row + Form::kRows <= o.rows.rows; row += Form::kRows)
    overflows += block<Form::kRows, Wide, Signs, Shifted>(form, o, row, closing, acc);
  for (; row < o.rows.rows; ++row) overflows += block<1, Wide, Signs, Shifted>(form, o, row, closing, acc);
  return overflows;
}

// The forms that are compiled. The first that covers a table's planes and halves serves it; the last covers all.
template <typename Lane>
struct Forms;
template <>
struct Forms<int16_t> {
  template <typename Visit>
  static int64_t visit(const PermuteTables<int16_t>& t, Visit visit) {
    return t.sums == 1 ? visit(std::type_identity<Windows<int16_t, 1>>{})
                       : visit(std::type_identity<Windows<int16_t, 2>>{});
  }
};
template <>
struct Forms<uint8_t> {
  template <typename Visit>
  static int64_t visit(const PermuteTables<uint8_t>& t, Visit visit) {
    const auto covers = [&](int sums, unsigned halves) { return t.sums == sums && (t.halves & ~halves) == 0; };
    if (t.halves == 0) {
      if (t.sums == 1) return visit(std::type_identity<Windows<uint8_t, 1>>{});
      if (t.sums == 2) return visit(std::type_identity<Windows<uint8_t, 2>>{});
      if (t.sums == 3) return visit(std::type_identity<Windows<uint8_t, 3>>{});
      return visit(std::type_identity<Windows<uint8_t, 4>>{});
    }
    if (covers(1, 0b11)) return visit(std::type_identity<BytePlanes<1, 0b11>>{});
    if (covers(2, 0b1111)) return visit(std::type_identity<BytePlanes<2, 0b1111>>{});
    if (covers(3, 0b010101)) return visit(std::type_identity<BytePlanes<3, 0b010101>>{});
    if (covers(3, 0b101111)) return visit(std::type_identity<BytePlanes<3, 0b101111>>{});
    if (covers(3, 0b111111)) return visit(std::type_identity<BytePlanes<3, 0b111111>>{});
    if (covers(4, 0b01010101)) return visit(std::type_identity<BytePlanes<4, 0b01010101>>{});
    if (covers(4, 0b10101111)) return visit(std::type_identity<BytePlanes<4, 0b10101111>>{});
    if (covers(4, 0b10111101)) return visit(std::type_identity<BytePlanes<4, 0b10111101>>{});
    return visit(std::type_identity<BytePlanes<4, 0b11111111>>{});
  }
};

template <typename Lane>
int64_t accumulate(const PermuteTables<Lane>& t, const PackedRows& rows, const uint8_t* packed, const int* steps,
                   int step_count, const Accumulator<int64_t>& accumulator, const VectorShifts& shifts, bool counting,
                   int32_t* acc) {
  const PackedVector o = {.rows = rows, .packed = packed, .steps = steps, .step_count = step_count};
  const Closing<PermuteTables<Lane>> closing = {.t = t, .a = accumulator, .counting = counting, .shifts = shifts};
  return Forms<Lane>::visit(t, [&](auto type) {
    const typename decltype(type)::type form(t);
    if (shifts.rows)
      return t.wide ? all_blocks<true, true, true>(form, o, closing, acc)
                    : all_blocks<false, true, true>(form, o, closing, acc);
    if (t.wide) return all_blocks<true, true, false>(form, o, closing, acc);
    return rows.negative ? all_blocks<false, true, false>(form, o, closing, acc)
                         : all_blocks<false, false, false>(form, o, closing, acc);
  });
}

#include "cpu/permute_pack.inc"

template <typename Lane>
constexpr PermuteKernels<Lane> permute = {.takes = [](const PermuteTables<Lane>&) { return true; },
                                          .most_rows = INT64_MAX,
                                          .pack_rows = pack_rows<Lane>,
                                          .pack_lines = pack_lines<Lane>,
                                          .pack_columns = pack_columns<Lane>,
                                          .accumulate = accumulate<Lane>};

}  // namespace

const Kernels& table() {
  static const Kernels kernels = [] {
    Kernels k = avx512::table;
    k.name = "avx512_vnni";
    k.permute8 = &permute<uint8_t>;
    k.permute16 = &permute<int16_t>;
    return k;
  }();
  return kernels;
}

}  // namespace avx512_vnni
}  // namespace lns::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
