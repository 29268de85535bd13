// The register look-up: the whole product table of a datapath in vector registers, read by byte permutes and summed by
// dot-product instructions, four lanes at a time. Nothing is built in memory, so it is fast for any number of rows.
//
// A dot-product instruction adds unsigned times signed numbers to 32-bit sums. Two forms of T[p] fit it:
// - Windows. With one LUT constant per remainder, T[p] = C[p mod gamma] * 2^(p div gamma - acc_lsb), or 0 below the
//   accumulator's LSB. The constant is one permute, the signed power of two another. A signed number holds few powers
//   (7 in a byte, 15 in a word), so the octaves are cut into windows of that many, each with a sum of its own.
// - Byte planes. Any table of up to 255 products is four bytes a product: a permute and a sum per byte, where the
//   second factor is the sign. 128 bytes are a permute, so a plane takes one or two.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "core/datapath.h"
#include "cpu/tile.h"

namespace lns::cpu {

// Lane: uint8_t for formats of up to 8 bits, int16_t for any (see to_lane). Four bytes of lanes are a step.
template <typename Lane>
struct PermuteTables {
  using Weight = std::conditional_t<sizeof(Lane) == 1, int8_t, int16_t>;
  using Index = std::make_unsigned_t<Lane>;
  static constexpr int kStep = 4 / sizeof(Lane);  // lanes of a step
  static constexpr int kIndexMax = (1 << 8 * sizeof(Lane)) - 1;
  static constexpr int kMaxSums = sizeof(Lane) == 1 ? 4 : 2;
  static constexpr int kLowSums = kMaxSums / 2;  // those that together fit 32 bits, and so do the others

  static constexpr int kWindowBits = 8 * static_cast<int>(sizeof(Lane)) - 1;
  static constexpr int kUnits = sizeof(Lane) == 1 ? 64 : 128;  // remainders that one permute can tell apart
  static constexpr int kSlots = 32;                            // octaves that a weight's index counts; slot 0 weighs 0
  static constexpr int kHalf = 128;                            // products of half a byte plane

  // Rows hold e + row_offset, columns column_offset - e; zero codes hold 0 and kIndexMax. Their difference, saturated
  // at 0, is the product's index: its distance from `column_offset - row_offset`. Index 0 weighs nothing.
  int row_offset, column_offset;
  // Sign bits, so that the XOR of a row's and a column's is the product's; a positive row's are 0.
  Index row_negative, column_positive, column_negative;
  // A vector's sum Y is that of sums[j] << (first_shift + j * kWindowBits), or j * 8 for planes. `wide`: Y, or acc and
  // the aligned Y, need more than 32 bits.
  int sums, first_shift;
  bool wide;

  // Windows: a slot is an octave, bits of the index, and the sign above them.
  int log2_gamma;
  Index slot_mask;
  alignas(64) uint8_t units[kUnits];
  alignas(64) Weight weights[kMaxSums][2 * kSlots];

  // Byte planes: which halves of each hold anything (bit 0: the lower, bit 1: the upper), two bits a plane. 0: windows.
  unsigned halves;
  alignas(64) uint8_t planes[kMaxSums][2 * kHalf];

  // Offsets for an index that is the distance from product `base`.
  void set_base(int base, int e_max) {
    row_offset = std::max(0, e_max - base);
    column_offset = base + row_offset;
  }
};

// The first form, if the datapath has one constant of a byte a remainder and not too many octaves.
template <typename Lane>
std::optional<PermuteTables<Lane>> window_tables(const Datapath& d) {
  using Tables = PermuteTables<Lane>;
  const int g = d.format.gamma, last = d.max_product_code();
  const int first = std::max(0, d.lane_lsb()), octaves = last / g - first + 1;
  const int base = (first - 1) * g;  // slot 0 is the octave before the first that counts
  const auto constants = lut_constants(d);
  if (sizeof(Lane) == 1 && d.format.bits > 8) return {};
  if (d.lut_entries != g || g > Tables::kUnits || *std::max_element(constants.begin(), constants.end()) > 255)
    return {};
  if (octaves < 1 || octaves >= Tables::kSlots || octaves > Tables::kMaxSums * Tables::kWindowBits) return {};
  if (last - base > Tables::kIndexMax) return {};

  Tables t{};
  t.set_base(base, d.format.e_max());
  t.row_negative = t.column_negative = Tables::kSlots;
  t.sums = static_cast<int>(ceil_div(octaves, Tables::kWindowBits));
  t.log2_gamma = log2_exact(g);
  t.slot_mask = static_cast<typename Tables::Index>(std::min(Tables::kSlots - 1, Tables::kIndexMax >> t.log2_gamma));
  for (int i = 0; i < Tables::kUnits; ++i) t.units[i] = static_cast<uint8_t>(constants[i % g]);
  t.first_shift = first - d.lane_lsb();
  for (int j = 0; j < t.sums; ++j) {
    for (int i = 0; i < Tables::kWindowBits && j * Tables::kWindowBits + i < octaves; ++i) {
      const int slot = 1 + j * Tables::kWindowBits + i;
      t.weights[j][slot] = static_cast<typename Tables::Weight>(1 << i);
      t.weights[j][Tables::kSlots + slot] = static_cast<typename Tables::Weight>(-(1 << i));
    }
  }
  return t;
}

// The second form, if at most 255 products count and none is longer than four bytes, common low zeros aside.
inline std::optional<PermuteTables<uint8_t>> byte_plane_tables(const Datapath& d, const std::vector<int64_t>& product) {
  using Tables = PermuteTables<uint8_t>;
  if (d.format.bits > 8) return {};
  // Products 0 and 1 belong to zero operands.
  const int last = d.max_product_code();
  int64_t any = 0;
  for (int p = 2; p <= last; ++p) any |= product[p];
  if (any == 0) return {};
  const int low_zeros = __builtin_ctzll(any), planes = (64 - __builtin_clzll(any >> low_zeros) + 7) / 8;
  if (planes > Tables::kMaxSums) return {};
  const auto byte = [&](int plane, int p) { return static_cast<uint8_t>(product[p] >> (low_zeros + 8 * plane)); };
  int first = 2;
  while (product[first] == 0) ++first;

  Tables t{};
  t.row_negative = 0xfe;
  t.column_positive = 1;
  t.column_negative = 0xff;
  t.sums = planes;
  t.first_shift = low_zeros;
  // Of all positions of the products among the indices, the one that leaves the most halves empty.
  int fewest = 1 + 2 * Tables::kMaxSums, best = 0;
  int begin[Tables::kMaxSums], end[Tables::kMaxSums];
  for (int j = 0; j < planes; ++j) {
    begin[j] = last + 1, end[j] = 0;
    for (int p = first; p <= last; ++p)
      if (byte(j, p)) begin[j] = std::min(begin[j], p), end[j] = p;
  }
  for (int base = std::min(first - 1, last - 1); base >= last - Tables::kIndexMax; --base) {
    unsigned halves = 0;
    for (int j = 0; j < planes; ++j)
      halves |= ((begin[j] - base < Tables::kHalf && end[j] ? 1u : 0u) | (end[j] - base >= Tables::kHalf ? 2u : 0u))
                << 2 * j;
    if (__builtin_popcount(halves) < fewest) fewest = __builtin_popcount(halves), best = base, t.halves = halves;
  }
  if (t.halves == 0) return {};
  t.set_base(best, d.format.e_max());
  for (int j = 0; j < planes; ++j)
    for (int p = first; p <= last; ++p) t.planes[j][p - best] = byte(j, p);
  return t;
}

// What the kernels make of a product's index and sign bits, for a vector of one lane.
template <typename Lane>
int64_t value_of(const PermuteTables<Lane>& t, int index, typename PermuteTables<Lane>::Index sign) {
  using Tables = PermuteTables<Lane>;
  int64_t y = 0;
  for (int j = 0; j < t.sums; ++j) {
    if (t.halves == 0) {
      const int slot = (index >> t.log2_gamma & t.slot_mask) | (sign & ~t.slot_mask);
      y += static_cast<int64_t>(t.units[index % Tables::kUnits]) * t.weights[j][slot % (2 * Tables::kSlots)]
           << j * Tables::kWindowBits;
    } else if (t.halves >> (2 * j + index / Tables::kHalf) & 1) {
      y += static_cast<int64_t>(t.planes[j][index]) * static_cast<int8_t>(sign) << 8 * j;
    }
  }
  return y << t.first_shift;
}

// Is every product of two codes what the tables make of it? Zero codes and products below the first have index 0.
template <typename Lane>
bool reproduces(const PermuteTables<Lane>& t, const std::vector<int64_t>& product) {
  const int last = static_cast<int>(product.size()) - 1, base = t.column_offset - t.row_offset;
  const int most = PermuteTables<Lane>::kIndexMax;
  if (last / 2 + t.row_offset > most || last - base > most || t.first_shift > 62) return false;
  for (const bool row : {false, true})
    for (const bool column : {false, true}) {
      const auto sign = static_cast<typename PermuteTables<Lane>::Index>(
          (row ? t.row_negative : 0) ^ (column ? t.column_negative : t.column_positive));
      if (value_of(t, 0, sign) != 0) return false;
      for (int p = 2; p <= last; ++p)
        if (value_of(t, std::max(0, p - base), sign) != (row == column ? product[p] : -product[p])) return false;
    }
  return true;
}

// The tables of a datapath, if one of the forms gives all its products and its sums fit.
template <typename Lane>
std::optional<PermuteTables<Lane>> permute_tables(const Datapath& d, const std::vector<int64_t>& product) {
  auto t = window_tables<Lane>(d);
  if (t && !reproduces(*t, product)) t.reset();
  if constexpr (sizeof(Lane) == 1)
    if (!t) t = byte_plane_tables(d, product);
  if (!t || !reproduces(*t, product)) return {};
  // Sums of up to 255 * 2^(kWindowBits - 1) a product must fit 32 bits, in pairs where there are two pairs.
  const int pair = sizeof(Lane) == 1 ? PermuteTables<Lane>::kWindowBits : 0;
  if ((__int128{255} << (PermuteTables<Lane>::kWindowBits - 1 + pair)) * d.vector_size * 2 > INT32_MAX) return {};
  const __int128 y = static_cast<__int128>(*std::max_element(product.begin(), product.end())) * d.vector_size +
                     (1 << d.fraction_bits());
  t->wide = y > INT32_MAX || (y >> d.fraction_bits()) + (int64_t{1} << (d.acc_bits - 1)) > INT32_MAX;
  return t;
}

// Octaves by which a vector's block scales lie under their tensors': of each row, and of 16 columns; null where there
// are no blocks.
struct VectorShifts {
  const uint8_t* rows = nullptr;
  const int32_t* columns = nullptr;
};

// Rows of packed lanes: step s of row r stands at r * strides.row + s * strides.depth bytes.
struct PackedRows {
  const uint8_t *magnitudes, *signs;
  TileStrides strides;
  int64_t rows;
  bool negative;  // is any lane?
};

// The instruction set's part of it. Magnitudes and signs are made of lanes, a step's lanes of a row or column together;
// packing rows tells whether any lane is negative.
template <typename Lane>
struct PermuteKernels {
  // Which tables it takes, and up to how many rows (of the longer operand) it is faster than row tables.
  bool (*takes)(const PermuteTables<Lane>& t);
  int64_t most_rows;

  // `steps` steps of rows, lanes[row][pitch] to [row][step].
  bool (*pack_rows)(const PermuteTables<Lane>& t, const Lane* lanes, int64_t rows, int64_t pitch, int steps,
                    uint8_t* magnitudes, uint8_t* signs);
  // A step of n rows, whose lane i stands i * kTileRows further on.
  bool (*pack_lines)(const PermuteTables<Lane>& t, const Lane* lanes, int64_t n, uint8_t* magnitudes, uint8_t* signs);
  // Steps of 16 columns: lanes[column][pitch] to packed[step][magnitudes, signs][column].
  void (*pack_columns)(const PermuteTables<Lane>& t, const Lane* lanes, int pitch, int steps, uint8_t* packed);
  // One vector: sums of rows with 16 columns over the steps named, closed by their shifts into acc[row][16]. Returns
  // the overflows if counting.
  int64_t (*accumulate)(const PermuteTables<Lane>& t, const PackedRows& rows, const uint8_t* packed, const int* steps,
                        int step_count, const Accumulator<int64_t>& accumulator, const VectorShifts& shifts,
                        bool counting, int32_t* acc);
};

}  // namespace lns::cpu
