// How scales lie over a tensor.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace lns {

// A contiguous tensor seen as (outer, slices, inner) with one scale per slice; slices = 1 is one scale per tensor.
struct Slices {
  int64_t outer, slices, inner;
  LNS_HD int64_t numel() const { return outer * slices * inner; }
};
inline Slices whole(int64_t n) { return {.outer = 1, .slices = 1, .inner = n}; }

}  // namespace lns
