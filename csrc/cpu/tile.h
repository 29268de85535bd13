// A tile of lanes: a block of rows at a few consecutive K, laid out with either dimension contiguous.
#pragma once

#include <cstdint>

namespace lns::cpu {

constexpr int kTileRows = 1024;  // rows of a tile, and its pitch where rows are contiguous

// Where a tile holds the lane of its row r at depth d: r * row + d * depth.
struct TileStrides {
  int64_t row, depth;
};

}  // namespace lns::cpu
