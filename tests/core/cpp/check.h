// What the parts of the stand-alone test share.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "core/datapath.h"
#include "gemm/operand.h"

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                               \
    }                                                             \
  } while (0)

namespace lns::test {

inline std::mt19937 generator(1);
inline int random_int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
inline uint32_t random_word() { return static_cast<uint32_t>(generator()); }

// Equal floats, bit by bit; any NaN equals any other.
inline bool same(float a, float b) { return float_bits(a) == float_bits(b) || (a != a && b != b); }

// Storage of exactly the codes, so that a read past the end is seen.
struct Codes {
  Format format;
  std::vector<uint8_t> narrow;
  std::vector<int16_t> wide;

  Codes(const Format& f, int64_t n) : format(f) {
    for (int64_t i = 0; i < n; ++i) {
      const int code = random_int(0, (1 << f.bits) - 1);
      if (f.bits > 8)
        wide.push_back(static_cast<int16_t>(code));
      else
        narrow.push_back(static_cast<uint8_t>(code));
    }
  }
  void* data() { return format.bits > 8 ? static_cast<void*>(wide.data()) : narrow.data(); }
  CodeView view() const {
    return {.data = format.bits > 8 ? static_cast<const void*>(wide.data()) : narrow.data(), .format = format};
  }
  int at(int64_t i) const { return format.bits > 8 ? wide[i] : narrow[i]; }
};

// The paper's datapath of a format, but for what is changed behind.
inline Datapath datapath(const Format& f, int acc_bits = 24, int headroom_bits = 5) {
  return {.format = f,
          .vector_size = 32,
          .lut_entries = f.gamma,
          .lut_bits = 8,
          .acc_bits = acc_bits,
          .acc_lsb = default_acc_lsb(f, acc_bits, headroom_bits, 0),
          .rounding = Alignment::truncate,
          .overflow = Overflow::saturate};
}

// The parts. Kernels are those of the instruction set in use.
void test_kernels();
void test_log();
void test_tables();

}  // namespace lns::test
