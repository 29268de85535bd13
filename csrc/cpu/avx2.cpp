// The kernels for x86-64 with AVX2.
#include <type_traits>
#include <utility>

#include "cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own headers, where intrinsics are inlined
#endif
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2")
#endif

#define LNS_ISA_NAME "avx2"
#define LNS_VECTOR_BYTES 32

namespace lns::cpu::avx2 {
#include "cpu/kernels.inc"
}  // namespace lns::cpu::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
