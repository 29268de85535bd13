// Drives a comparison vector (int8_vector or fp8_vector, verilated as Vtop) without pauses; writes each accumulator as
// int32.
//
// Input: int32 count, stride; then for each vector uint8 entry, first, 0, 0 and the lanes of a and of b in `stride`
// bytes each.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

int main(int argc, char** argv) {
  constexpr int kLatency = 3;
  std::FILE* in = argc == 3 ? std::fopen(argv[1], "rb") : nullptr;
  std::FILE* out = in ? std::fopen(argv[2], "wb") : nullptr;
  int32_t header[2];
  if (!out || std::fread(header, sizeof header, 1, in) != 1) return 2;
  std::vector<uint8_t> word(4 + 2 * header[1]);
  Vtop top;
  for (int i = 0; i < header[0] + kLatency; ++i) {
    top.in_valid = i < header[0];
    if (top.in_valid) {
      if (std::fread(word.data(), word.size(), 1, in) != 1) return 3;
      top.in_entry = word[0], top.in_first = word[1];
      std::memcpy(&top.in_a, word.data() + 4, sizeof(top.in_a));
      std::memcpy(&top.in_b, word.data() + 4 + header[1], sizeof(top.in_b));
    }
    top.eval(), top.clk = 1, top.eval(), top.clk = 0, top.eval();
    if (i < kLatency - 1 || i >= header[0] + kLatency - 1) continue;
    const int32_t acc = static_cast<int32_t>(static_cast<uint32_t>(top.out_acc) << (32 - ACC_BITS)) >> (32 - ACC_BITS);
    std::fwrite(&acc, sizeof acc, 1, out);
  }
  top.final();
  return std::fclose(out);
}
