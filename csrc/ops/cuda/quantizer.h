// A quantizer on the device of a call, and its random state.
#pragma once

#include "cuda/elementwise.h"
#include "ops/cuda/device.h"
#include "ops/elementwise.h"

namespace lns::ops {

inline Quantizer view(const QuantizerChoice& q, const cuda::Launch& at, const Tensor& like) {
  static auto& devices = *new DeviceTables<std::pair<int, std::vector<int64_t>>>;  // outlives CUDA, which ends first
  const QuantizerTables& tables = quantizer_tables(q.format.gamma, q.thresholds);
  const int32_t* packed = devices.get({q.format.gamma, q.thresholds}, at, like, [&] { return cuda::pack(tables); });
  return cuda::view(packed, tables, q.format, q.rounding, q.underflow);
}

inline const int64_t* pointer(const Rng& rng) { return rng ? rng->const_data_ptr<int64_t>() : nullptr; }

}  // namespace lns::ops
