// Drives lns_datapath or log_pe (verilated as Vtop) with vectors from a file and writes what comes out, with pauses on
// both sides drawn from a seed. A third argument names a file for waveforms (VCD), where the simulator is built with
// them.
//
// Input: int32 count, pause (in 256ths), stride; then for each vector uint8 entry, first, last, 0, int32 scale, and the
// lanes of a and of b in `stride` bytes each. Output: int32 entry, accumulator, code for each result, and int32 -1,
// clocks, 0. A design without post-processing (no SCALE_BITS) reads no scale and has the code 0.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

template <class Port>
void set(Port& port, const uint8_t* bytes) {
  std::memcpy(&port, bytes, sizeof(port));
}

int main(int argc, char** argv) {
  std::FILE* in = argc >= 3 ? std::fopen(argv[1], "rb") : nullptr;
  std::FILE* out = in ? std::fopen(argv[2], "wb") : nullptr;
  int32_t header[3];
  if (!out || std::fread(header, sizeof header, 1, in) != 1) return 2;
  const int32_t count = header[0], pause = header[1];
  const size_t stride = header[2], size = 8 + 2 * stride;
  std::vector<uint8_t> word(size);
  std::mt19937 random(1);
  auto pauses = [&] { return static_cast<int32_t>(random() & 255) < pause; };
  Vtop top;
#if VM_TRACE
  Verilated::traceEverOn(true);
  VerilatedVcdC waves;
  top.trace(&waves, 99);
  if (argc > 3) waves.open(argv[3]);
#endif
  uint64_t time = 0;
  auto settle = [&] {
    top.eval();
#if VM_TRACE
    if (waves.isOpen()) waves.dump(time);
#endif
    ++time;
  };
  auto clock = [&] { top.clk = 1, settle(), top.clk = 0, settle(); };
  top.rst = 1;
  top.out_ready = 1;
  clock(), clock();
  top.rst = 0;
  int32_t sent = 0, clocks = 0, idle = 0;
  bool loaded = false;
  const int32_t longest = 64 + LANES;
  while (idle < longest) {  // until nothing can be on its way any more
    if (!loaded && sent < count) {
      if (std::fread(word.data(), size, 1, in) != 1) return 3;
      top.in_entry = word[0], top.in_first = word[1], top.in_last = word[2];
#ifdef SCALE_BITS
      int32_t scale;
      std::memcpy(&scale, word.data() + 4, sizeof scale);
      top.in_scale = scale & ((1 << SCALE_BITS) - 1);
#endif
      set(top.in_a, word.data() + 8);
      set(top.in_b, word.data() + 8 + stride);
      loaded = true;
    }
    top.in_valid = loaded && !pauses();
    top.out_ready = !pauses();
    settle();
    if (top.out_valid && top.out_ready) {
      const int32_t acc =
          static_cast<int32_t>(static_cast<uint32_t>(top.out_acc) << (32 - ACC_BITS)) >> (32 - ACC_BITS);
#ifdef SCALE_BITS
      const int32_t code = top.out_code;
#else
      const int32_t code = 0;
#endif
      const int32_t result[3] = {top.out_entry, acc, code};
      std::fwrite(result, sizeof result, 1, out);
    }
    const bool taken = top.in_valid && top.in_ready;
    idle = sent == count ? idle + 1 : 0;
    clock(), ++clocks;
    if (taken) loaded = false, ++sent;
  }
  const int32_t end[3] = {-1, clocks - longest, 0};
  std::fwrite(end, sizeof end, 1, out);
  top.final();
  return std::fclose(out);
}
