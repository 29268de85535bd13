// Block scales along one dimension (spec section 8): how blocks lie in a tensor, and a block's shift.
#pragma once

#include "core/rescale.h"

namespace lns {

// A contiguous tensor seen as (outer, n, inner), with a block for every `block` elements along n; the last may be
// short.
struct Blocks {
  int64_t outer, n, inner, block;

  LNS_HD int64_t along() const { return (n + block - 1) / block; }
  LNS_HD int64_t numel() const { return outer * n * inner; }
  LNS_HD int64_t count() const { return outer * along() * inner; }
  // The block of an element, in the order (outer, along n, inner).
  LNS_HD int64_t of(int64_t i) const { return (i / inner / n * along() + i / inner % n / block) * inner + i % inner; }
};

// The largest s up to s_max at which a magnitude of log code L has no code above e_max at scale 2^(k - s).
LNS_HD inline int block_shift(const Format& f, int L, int k, int s_max) {
  const int room = f.e_max() + f.gamma * k - L;
  return room < 0 ? 0 : (room / f.gamma < s_max ? room / f.gamma : s_max);
}

// The shift of a block whose largest magnitude has these float bits, at the tensor's scale.
LNS_HD inline int block_shift(const Quantizer& q, uint32_t top, uint32_t scale, int s_max) {
  if (top == 0 || scale_is_nan(scale)) return 0;
  return block_shift(q.format, log_code(q, top), scale_exponent(scale), s_max);
}

// The same of update-format codes, the largest with exponent e_top, on their way to forward codes at `scale`.
LNS_HD inline int block_shift(const Coarsening& c, int e_top, uint32_t update_scale, uint32_t scale, int s_max) {
  if (e_top == 0 || scale_is_nan(scale)) return 0;
  const int L = coarsen(e_top, c.shift) + c.forward.gamma * scale_exponent(update_scale);
  return block_shift(c.forward, L, scale_exponent(scale), s_max);
}

}  // namespace lns
