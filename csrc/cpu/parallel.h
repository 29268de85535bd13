// The thread pool as the kernels see it. The bindings give torch's; a stand-alone test may give its own.
#pragma once

#include <cstdint>
#include <functional>

namespace lns::cpu {

// Calls body(begin, end) on disjoint ranges that cover [0, n), possibly from several threads. All float arithmetic of
// the kernels runs in such bodies: the bindings give them IEEE's (ieee_floats.h).
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);
int num_threads();

}  // namespace lns::cpu
