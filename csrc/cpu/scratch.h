// Working memory of a thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "cpu/kernels.h"

namespace lns::cpu {

// Uninitialised memory aligned for any vector.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t n) : data_(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)))) {}
  ~Scratch() {
    if (data_) ::operator delete(data_, std::align_val_t(64));
  }
  Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Scratch& operator=(Scratch&&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// The sums or accumulators of a task's groups, zero at its start.
template <typename T>
class GroupSums {
 public:
  void clear(int64_t n) {
    if (n > size_) memory_ = std::make_unique<Scratch<T>>(size_ = n);
    std::fill_n(memory_->get(), n, T{0});
  }
  T* get() const { return memory_->get(); }
  T* group(int64_t group, int64_t rows) const { return get() + group * rows * kColumns; }

 private:
  int64_t size_ = 0;
  std::unique_ptr<Scratch<T>> memory_;
};

}  // namespace lns::cpu
