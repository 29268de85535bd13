// Lanes of some rows of an operand, handed out one datapath vector at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/reader.h"
#include "cpu/scratch.h"

namespace lns::cpu {

// Where K is contiguous several vectors are filled at once, as long runs cost less.
template <typename Lane>
class LaneBuffer {
 public:
  LaneBuffer(int64_t rows, int vector_size)
      : vector_size_(vector_size),
        vectors_(vector_size % 4 == 0 ? std::max(1, kRun / vector_size) : 1),
        pitch_(static_cast<int>(ceil_div(vector_size, 4)) * 4 * vectors_),
        lanes_(rows * pitch_) {}

  // Missing rows up to `padded` hold zero codes.
  void start(const Reader& reader, int64_t row0, int64_t rows, int64_t padded, int64_t k, TileStrides strides) {
    reader_ = &reader, row0_ = row0, rows_ = rows, k_ = k, strides_ = strides, end_ = 0;
    std::fill_n(lanes_.get() + rows * pitch_, (padded - rows) * pitch_, Lane{0});
  }
  // The vector at k0; the ones asked for follow each other.
  const Lane* at(int64_t k0) {
    if (k0 >= end_) {
      begin_ = k0;
      end_ = std::min(k_, k0 + vector_size_ * (strides_.row == 1 ? 1 : vectors_));
      reader_->fill(lanes_.get(), strides_, row0_, rows_, k0, end_ - k0);
      for (int64_t d = end_ - k0; d % 4 != 0; ++d)
        for (int64_t r = 0; r < rows_; ++r) lanes_.get()[r * strides_.row + d * strides_.depth] = 0;
    }
    return lanes_.get() + (k0 - begin_) * strides_.depth;
  }
  int pitch() const { return pitch_; }

 private:
  static constexpr int kRun = 256;
  int vector_size_, vectors_, pitch_;
  Scratch<Lane> lanes_;
  const Reader* reader_ = nullptr;
  int64_t row0_ = 0, rows_ = 0, k_ = 0, begin_ = 0, end_ = 0;
  TileStrides strides_{};
};

}  // namespace lns::cpu
