// Counters that need no accumulation: which products have a zero operand, and which vanish.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu/dot_products.h"
#include "cpu/parallel.h"
#include "cpu/reader.h"
#include "cpu/scratch.h"

namespace lns::cpu {

// Zero lanes and vanished products, from a histogram of exponents for every k: O(K * (rows + columns)) instead of
// O(K * rows * columns). Several k share a pass over the operands, as many as keep the histograms in cache.
class LaneCounter {
 public:
  LaneCounter(const Product& p, const Format& format, int64_t first_visible, const Reader& left, const Reader& right)
      : p_(p),
        left_(left),
        right_(right),
        levels_(format.e_max() + 1),
        first_visible_(first_visible),
        depth_(std::clamp<int64_t>(8192 / levels_, 1, 32)) {}

  void add_to(Counters& counters) const {
    std::atomic<int64_t> zero_lanes{0}, vanished{0};
    parallel_for(ceil_div(p_.k, depth_), 4, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> at_most(depth_ * levels_), nonzero(depth_);
      std::vector<int16_t> tile(kChunk * depth_);
      int64_t zeros = 0, lost = 0;
      for (int64_t k0 = begin * depth_; k0 < std::min(end * depth_, p_.k); k0 += depth_) {
        const int64_t depth = std::min(depth_, p_.k - k0);
        std::fill(at_most.begin(), at_most.end(), 0);
        std::fill(nonzero.begin(), nonzero.end(), 0);
        for_lanes(p_.left, left_, tile, k0, depth, [&](int64_t d, int e) { ++at_most[d * levels_ + e]; });
        for (int64_t d = 0; d < depth; ++d) {
          int64_t* histogram = &at_most[d * levels_];
          nonzero[d] = p_.left.rows - histogram[0];
          histogram[0] = 0;
          for (int64_t e = 1; e < levels_; ++e) histogram[e] += histogram[e - 1];
        }
        int64_t pairs = 0;
        for_lanes(p_.right, right_, tile, k0, depth, [&](int64_t d, int e) {
          if (e == 0) return;
          pairs += nonzero[d];
          const int64_t limit = std::clamp<int64_t>(first_visible_ - 1 - e, 0, levels_ - 1);
          lost += at_most[d * levels_ + limit];
        });
        zeros += p_.left.rows * p_.right.rows * depth - pairs;
      }
      zero_lanes += zeros;
      vanished += lost;
    });
    counters.zero_lanes += zero_lanes;
    counters.vanished += vanished;
  }

 private:
  static constexpr int64_t kChunk = 256;

  // Calls body(d, exponent) for every row of a side at k0 + d.
  template <typename Body>
  static void for_lanes(const Side& side, const Reader& reader, std::vector<int16_t>& tile, int64_t k0, int64_t depth,
                        Body body) {
    for (int64_t r0 = 0; r0 < side.rows; r0 += kChunk) {
      const int64_t n = std::min(kChunk, side.rows - r0);
      const bool by_rows = side.operand.rows_are_contiguous();
      const TileStrides strides =
          by_rows ? TileStrides{.row = 1, .depth = kChunk} : TileStrides{.row = depth, .depth = 1};
      reader.fill(tile.data(), strides, r0, n, k0, depth);
      for (int64_t d = 0; d < depth; ++d)
        for (int64_t r = 0; r < n; ++r) {
          const int lane = tile[r * strides.row + d * strides.depth];
          body(d, lane < 0 ? -lane : lane);
        }
    }
  }

  const Product& p_;
  const Reader &left_, &right_;
  int64_t levels_;
  int64_t first_visible_;
  int64_t depth_;
};

}  // namespace lns::cpu
