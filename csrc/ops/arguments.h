// Turns operator arguments into the core's types, and checks what the kernels rely on. User-facing checks, in the
// user's terms, are in Python; these guard direct calls of torch.ops.lns_sim.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/datapath.h"
#include "core/philox.h"
#include "core/slices.h"

namespace lns::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws unless a condition holds. Without streams, which torch's own check uses: they crash where libstdc++ is linked
// statically into the extension and dynamically into torch.
inline std::string text(const char* s) { return s; }
inline std::string text(int64_t n) { return std::to_string(n); }
template <typename... Parts>
inline void require(bool condition, const Parts&... parts) {
  if (!condition) throw std::invalid_argument((text(parts) + ...));
}

inline ScalarType code_type(const Format& f) { return f.bits > 8 ? ScalarType::Short : ScalarType::Byte; }

inline Format make_format(int64_t bits, int64_t gamma) {
  const Format f = {static_cast<int>(bits), static_cast<int>(gamma)};
  validate(f);
  return f;
}

inline void check_codes(const Tensor& codes, const Format& f, const char* name) {
  require(codes.scalar_type() == code_type(f), name, " must be ", f.bits > 8 ? "int16" : "uint8", " codes for ", f.bits,
          " bits");
}

inline void check_float(const Tensor& t, const char* name) {
  require(t.scalar_type() == ScalarType::Float, name, " must be float32");
}

// Keeps one value per key for the life of the process: engines and quantizer tables are small and few.
template <typename Key, typename Value>
class Cache {
 public:
  template <typename Make>
  const Value& get(const Key& key, Make make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<const Value>& slot = values_[key];
    if (!slot) slot = make();
    return *slot;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<const Value>> values_;
};

// The tables of a gamma, with its own thresholds or given ones.
inline const QuantizerTables& quantizer_tables(int gamma, const std::vector<int64_t>& thresholds = {}) {
  static Cache<std::pair<int, std::vector<int64_t>>, QuantizerTables> cache;
  return cache.get({gamma, thresholds}, [&] { return std::make_unique<const QuantizerTables>(gamma, thresholds); });
}

// Kernels of a device reach its own memory only.
inline void check_device(const Tensor& t, const Tensor& like, const char* name) {
  require(t.is_cuda() == like.is_cuda() && t.get_device_index() == like.get_device_index(), name,
          " must be on the device of the first tensor");
}

inline void check_rng(const std::optional<Tensor>& rng, const Tensor& like) {
  if (!rng) return;
  require(rng->scalar_type() == ScalarType::Long && rng->numel() == 4 && rng->is_contiguous(),
          "rng must be a contiguous int64 tensor [seed, step, tensor id, first element]");
  check_device(*rng, like, "rng");
}

// The slices of `dim`, or the whole tensor.
inline Slices slices_of(const Tensor& x, std::optional<int64_t> dim) {
  Slices s = {1, 1, x.numel()};
  if (!dim) return s;
  require(*dim >= 0 && *dim < x.dim(), "dim out of range");
  s = {1, x.size(*dim), 1};
  for (int64_t d = 0; d < *dim; ++d) s.outer *= x.size(d);
  for (int64_t d = *dim + 1; d < x.dim(); ++d) s.inner *= x.size(d);
  return s;
}

// The slices along which a scale of x's rank varies.
inline Slices slices_of_scale(const Tensor& x, const Tensor& scale) {
  check_float(scale, "scale");
  check_device(scale, x, "scale");
  if (scale.numel() == 1) return slices_of(x, std::nullopt);
  require(scale.dim() == x.dim(), "scale must be 0-d or of the tensor's rank");
  std::optional<int64_t> dim;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (scale.size(d) == 1) continue;
    require(!dim && scale.size(d) == x.size(d), "scale may vary along one dimension only");
    dim = d;
  }
  return slices_of(x, dim);
}

inline std::vector<int64_t> sizes_of(const Tensor& t) {
  const auto sizes = t.sizes();
  return std::vector<int64_t>(sizes.begin(), sizes.end());
}

inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

}  // namespace lns::ops
