// Counter-based random bits (Philox4x32-10): a function of (seed, element, step, tensor id) and nothing else, so a
// draw is the same on every device, thread count and instruction set, and after a resume.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace lns {

// Where a random stream stands. `tensor` tells apart the tensors that draw in the same step; `first` is the index, in
// the whole tensor, of a shard's first element.
struct RandomState {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t tensor = 0;
  uint64_t first = 0;
};

// The first output word of Philox4x32-10 for one element of the whole tensor, given in two halves.
LNS_HD inline uint32_t philox_word(const RandomState& s, uint32_t low, uint32_t high) {
  uint32_t c0 = low, c1 = high;
  uint32_t c2 = s.step, c3 = s.tensor;
  uint32_t k0 = static_cast<uint32_t>(s.seed), k1 = static_cast<uint32_t>(s.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}

// 24 uniform bits for an element of the shard: u = u24 * 2^-24 is a float32 in [0, 1).
LNS_HD inline uint32_t philox_u24(const RandomState& s, uint64_t element) {
  element += s.first;
  return philox_word(s, static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32)) >> 8;
}

// In [0, 1), from 24 random bits.
LNS_HD inline float unit_float(uint32_t u24) { return static_cast<float>(u24) * 5.9604644775390625e-08f /* 2^-24 */; }

}  // namespace lns
