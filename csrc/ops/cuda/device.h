// The CUDA device of a call: its stream, memory from torch's allocator, and the tables that devices keep.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <tuple>

#include "cuda/check.h"
#include "cuda/launch.h"
#include "ops/arguments.h"

// Of libtorch_cuda; torch's header declares it for builds inside torch only.
extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace lns::ops {

// Makes a tensor's device current, and launches on its current stream; what it allocates lives as long as this object.
class DeviceCall {
 public:
  explicit DeviceCall(const Tensor& like) : device_(like.get_device_index()), guard_(device_), like_(like) {
    void* stream = nullptr;
    require(aoti_torch_get_current_cuda_stream(device_, &stream) == 0, "torch names no current stream");
    launch_ = {.device = device_, .stream = static_cast<cudaStream_t>(stream), .allocate = [this](size_t bytes) {
                 scratch_.push_back(new_tensor(like_, {static_cast<int64_t>(bytes)}, ScalarType::Byte));
                 return scratch_.back().mutable_data_ptr();
               }};
  }
  DeviceCall(const DeviceCall&) = delete;

  const cuda::Launch& launch() const { return launch_; }

 private:
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  Tensor like_;
  std::vector<Tensor> scratch_;
  cuda::Launch launch_;
};

// A device's copy of a table, made when it is first needed: the only moment at which the host waits. In a CUDA graph's
// capture nothing may wait, so tables must be there before, as after any eager call of the same format and datapath.
template <typename Key>
class DeviceTables {
 public:
  // `make` returns the table, a vector.
  template <typename Make>
  const auto* get(const Key& key, const cuda::Launch& at, const Tensor& like, Make make) {
    using Element = typename std::decay_t<decltype(make())>::value_type;
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::tuple<int, Key> place{at.device, key};
    auto found = tensors_.find(place);
    if (found == tensors_.end()) {
      const auto& host = make();
      found = tensors_.emplace(place, copy(host.data(), static_cast<int64_t>(host.size() * sizeof(Element)), at, like))
                  .first;
    }
    return reinterpret_cast<const Element*>(found->second.const_data_ptr());
  }

 private:
  static Tensor copy(const void* host, int64_t bytes, const cuda::Launch& at, const Tensor& like) {
    cudaStreamCaptureStatus capture;
    cuda::check(cudaStreamIsCapturing(at.stream, &capture), "stream capture");
    require(capture == cudaStreamCaptureStatusNone,
            "this format or datapath is new to the GPU: run it once before a CUDA graph is captured");
    Tensor t = new_tensor(like, {bytes}, ScalarType::Byte);
    cuda::check(cudaMemcpyAsync(t.mutable_data_ptr(), host, bytes, cudaMemcpyHostToDevice, at.stream),
                "copy of tables");
    cuda::check(cudaStreamSynchronize(at.stream), "copy of tables");
    return t;
  }

  std::mutex mutex_;
  std::map<std::tuple<int, Key>, Tensor> tensors_;
};

}  // namespace lns::ops
