// The kernels for any machine, called "scalar": 128-bit vectors, which every compiler can lower.
#include <type_traits>
#include <utility>

#include "cpu/kernels.h"

#define LNS_ISA_NAME "scalar"
#define LNS_VECTOR_BYTES 16

namespace lns::cpu::baseline {
#include "cpu/kernels.inc"
}  // namespace lns::cpu::baseline
