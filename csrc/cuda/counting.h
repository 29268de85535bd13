// Counters on the device.
#pragma once

#include "core/format.h"
#include "cuda/launch.h"
#include "cuda/limits.h"
#include "gemm/product.h"

namespace lns::cuda {

// Atomic additions take unsigned integers.
LNS_HD inline unsigned long long* as_unsigned(int64_t* counter) {
  return reinterpret_cast<unsigned long long*>(counter);
}

// Enqueues what needs no accumulation: vectors, zero lanes, and products below `first_visible` as vanished.
void enqueue_lane_counts(const Product& p, const Format& format, int64_t first_visible, int vector_size,
                         Counters* counters, const Limits& limits, const Launch& at);

}  // namespace lns::cuda
