// The inner loops that are compiled once per instruction set, and the choice among them at run time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/datapath.h"
#include "core/float8.h"
#include "core/madam.h"
#include "core/powers_of_two.h"
#include "core/rescale.h"
#include "cpu/log_kernels.h"
#include "cpu/permute.h"
#include "cpu/tile.h"

namespace lns::cpu {

constexpr int kColumns = 16;     // columns that one pass over the left operand serves
constexpr int kLaneCodes = 256;  // rows per lane of a row table: sign and 7-bit exponent of the left code
constexpr int kRowDepth = 8;     // lanes whose row tables are held at once (128 KB)

// Signed product tables for the row path, 32 bits, padded so that any 16 consecutive exponents may be read.
struct SignedProducts {
  static constexpr int kEntries = 2 * 127 + 1 + 16;
  int32_t positive[kEntries] = {};
  int32_t negative[kEntries] = {};
  int32_t zero[kEntries] = {};
};

// Which left codes a tile holds, zero aside: no others need rows. Empty: lowest > highest.
struct CodeRange {
  int lowest = 128, highest = 0;  // exponents
  bool positive = false, negative = false;
};

// A block of 16 right-hand columns for the look-up path: where in the product table each lane starts, and its sign.
// The start of a zero code lies past the products, where the table holds zeros.
template <typename State>
struct LookupLane {
  int32_t start[kColumns];
  State sign[kColumns];  // 0 or -1
};

struct Kernels {
  const char* name;

  // rows[d][code][column] = product of `code` with column's code at lane d, for `depth` lanes and the codes in `range`
  // (and zero). columns: [16][stride] codes, one row per column.
  void (*build_rows)(const SignedProducts& products, const CodeRange& range, const uint8_t* columns, int stride,
                     int depth, int32_t* rows);
  // Widens `range` to n codes.
  void (*widen_range)(const uint8_t* codes, int64_t n, CodeRange* range);
  // state[i][16] += sum over lanes d of rows[d][codes[i * strides.row + d * strides.depth]]. One stride is 1; if it is
  // the row's, the other is kTileRows.
  void (*add_rows)(const uint8_t* codes, TileStrides strides, int64_t n, int depth, const int32_t* rows,
                   int32_t* state);

  // state[i][16] += sum over lanes of the signed product table's entries, for any format.
  void (*add_lookups32)(const int16_t* lanes, TileStrides strides, int64_t n, int depth,
                        const LookupLane<int32_t>* columns, const int32_t* table, int32_t* state);
  void (*add_lookups64)(const int16_t* lanes, TileStrides strides, int64_t n, int depth,
                        const LookupLane<int64_t>* columns, const int64_t* table, int64_t* state);

  // Ends a vector: align, accumulate, saturate or wrap. Adds the number of overflows to *overflows if it is given.
  void (*close32)(const Accumulator<int32_t>& accumulator, int32_t* state, int64_t n, int64_t* overflows);
  void (*close64)(const Accumulator<int64_t>& accumulator, int64_t* state, int64_t n, int64_t* overflows);
  // The same where the vector's sum is high * 2^shift + low, beside the accumulators; clears both sums.
  void (*close_planes)(const Accumulator<int64_t>& accumulator, int32_t* acc, int32_t* low, int32_t* high, int shift,
                       int64_t n, int64_t* overflows);

  // The same with block scales, into accumulators that stand beside the sums: of 32 bits that hold both, in planes, and
  // of 64 bits; clears the sums.
  void (*close_shifted32)(const Accumulator<int32_t>& accumulator, const VectorShifts& shifts, int32_t* acc,
                          int32_t* sums, int64_t n, int64_t* overflows);
  void (*close_shifted_planes)(const Accumulator<int64_t>& accumulator, const VectorShifts& shifts, int32_t* acc,
                               int32_t* low, int32_t* high, int shift, int64_t n, int64_t* overflows);
  void (*close_shifted64)(const Accumulator<int64_t>& accumulator, const VectorShifts& shifts, int32_t* acc,
                          int64_t* sums, int64_t n, int64_t* overflows);

  // Values of accumulators: square[r][c] = acc[r][c] * row_factors[r] * column_factors[c], for 16 columns.
  void (*read_out)(const int32_t* acc, const double* row_factors, const double* column_factors, int rows,
                   float* square);
  // Transposes 16 x 16 elements of 32 bits in place.
  void (*transpose_square)(int32_t* square);

  // Log-domain accumulation: state[i][16] = what the datapath makes of it and lanes 0 .. depth - 1, in words. rows:
  // [n][pitch], columns: [depth][16]. Counts are added to if they are given.
  void (*log_lookups)(const LogStep& t, const int32_t* rows, int64_t pitch, int64_t n, int depth,
                      const int32_t* columns, int32_t* state, LogCounts* counts);
  // The same of pairs of rows with tables in registers, where the instruction set has as wide ones. columns:
  // [depth][2][16] pairs of E, then of signs.
  void (*log_registers)(const LogRegisters& t, const ShortLogPair* rows, int64_t pitch, int64_t pairs, int depth,
                        const int32_t* columns, int32_t* state) = nullptr;

  // Largest magnitude of n floats, as float bits; NaN and Inf compare above every finite number.
  uint32_t (*magnitude_max)(const float* x, int64_t n);
  // Codes of n floats at one scale; `first` is the element index of x[0] for the random bits.
  void (*quantize8)(const Quantizer& q, const RandomState& random, const float* x, int64_t n, uint64_t first, int k,
                    uint8_t* codes);
  void (*quantize16)(const Quantizer& q, const RandomState& random, const float* x, int64_t n, uint64_t first, int k,
                     int16_t* codes);
  void (*madam8)(const Format& f, const MadamStep& s, const RandomState& random, uint8_t* codes, const float* grad,
                 float* moment, int64_t n, uint64_t first, int e_cap);
  void (*madam16)(const Format& f, const MadamStep& s, const RandomState& random, int16_t* codes, const float* grad,
                  float* moment, int64_t n, uint64_t first, int e_cap);
  // Random numbers in [0, 1) for elements first, first + 1, ...
  void (*uniform)(const RandomState& random, int64_t n, uint64_t first, float* u);
  // n floats rounded to powers of two of `unit`.
  void (*round_to_powers)(const PowerRounding& r, float unit, const RandomState& random, const float* x, int64_t n,
                          uint64_t first, float* out);
  // How far n floats reach from zero.
  Ends (*ends)(const float* x, int64_t n);
  // Integers of n floats of one channel, or of `each` a channel; to nearest, or stochastic where a random state is
  // given.
  void (*integers8)(const IntegerChannel* c, bool each, const RandomState* random, const float* x, int64_t n,
                    uint64_t first, int8_t* codes);
  void (*integers16)(const IntegerChannel* c, bool each, const RandomState* random, const float* x, int64_t n,
                     uint64_t first, int16_t* codes);
  // What the nearest integers stand for.
  void (*integer_values)(const IntegerChannel& c, float scale, const float* x, int64_t n, float* values);
  // Floats of 8 bits, and what they stand for.
  void (*to_floats8)(bool e5m2, float scale, const float* x, int64_t n, uint8_t* codes);
  void (*from_floats8)(bool e5m2, const uint8_t* codes, float scale, int64_t n, float* x);
  // Codes moved from scale exponent k_old to k_new.
  void (*rescale8)(const Quantizer& q, const RandomState& random, const uint8_t* codes, int64_t n, uint64_t first,
                   int k_old, int k_new, uint8_t* out);
  void (*rescale16)(const Quantizer& q, const RandomState& random, const int16_t* codes, int64_t n, uint64_t first,
                    int k_old, int k_new, int16_t* out);
  // Update-format codes to forward codes, each uint8_t or int16_t as its format has it.
  void (*coarsen)(const Coarsening& c, const void* codes, int64_t n, void* out);

  // The register look-up, where the instruction set has it.
  const PermuteKernels<uint8_t>* permute8 = nullptr;
  const PermuteKernels<int16_t>* permute16 = nullptr;
};

// The names that this machine can run, best last.
std::vector<std::string> available_isas();
// The kernels in use: the best available, or the one that LNS_SIM_ISA or set_isa names. Throws if it cannot run.
const Kernels& kernels();
void set_isa(const std::string& name);

}  // namespace lns::cpu
