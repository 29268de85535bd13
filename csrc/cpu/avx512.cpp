// The kernels for x86-64 with AVX-512 (F, BW, DQ, VL).
#include <type_traits>
#include <utility>

#include "cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own headers, where intrinsics are inlined
#endif
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

#define LNS_ISA_NAME "avx512"
#define LNS_VECTOR_BYTES 64

namespace lns::cpu::avx512 {
#include "cpu/kernels.inc"
}  // namespace lns::cpu::avx512

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
