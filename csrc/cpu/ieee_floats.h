// The float arithmetic that the core assumes, whatever the caller has set.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lns::cpu {

// While it lives its thread rounds to nearest and keeps subnormal numbers; torch.set_flush_denormal, for one, makes
// them zero, and threads inherit it.
class IeeeFloats {
 public:
  IeeeFloats() : before_(read()) { write(before_ & ~kDepartures); }
  ~IeeeFloats() { write(before_); }
  IeeeFloats(const IeeeFloats&) = delete;
  IeeeFloats& operator=(const IeeeFloats&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kDepartures = 0xe040;  // flush to zero, rounding mode, denormals are zero
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t control) { _mm_setcsr(static_cast<uint32_t>(control)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kDepartures = uint64_t{7} << 22;  // rounding mode, flush to zero
  static uint64_t read() {
    uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
  }
  static void write(uint64_t control) { asm volatile("msr fpcr, %0" ::"r"(control)); }
#else
  static constexpr uint64_t kDepartures = 0;
  static uint64_t read() { return 0; }
  static void write(uint64_t) {}
#endif

  uint64_t before_;
};

}  // namespace lns::cpu
