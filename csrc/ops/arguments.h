// Turns operator arguments into the core's types, and checks what the kernels rely on. User-facing checks, in the
// user's terms, are in Python; these guard direct calls of torch.ops.lns_sim.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/encoding.h"
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

// Integers and options come as int64: none may wrap around on its way to the core's types.
inline int as_int(int64_t n, const char* name) {
  require(n == static_cast<int>(n), name, " is out of range: ", n);
  return static_cast<int>(n);
}
template <typename Option>
inline Option as_option(int64_t n, int choices, const char* name) {
  require(n >= 0 && n < choices, name, " must be between 0 and ", choices - 1, ", got ", n);
  return static_cast<Option>(n);
}
inline Rounding as_rounding(int64_t n) { return as_option<Rounding>(n, 2, "rounding"); }
inline Underflow as_underflow(int64_t n) { return as_option<Underflow>(n, 3, "underflow"); }

inline Format make_format(int64_t bits, int64_t gamma) {
  const Format f = {.bits = as_int(bits, "bits"), .gamma = as_int(gamma, "gamma")};
  validate(f);
  return f;
}

// A tensor argument: of its type, in memory, and on the device of the call's first tensor, as kernels reach no other.
inline void check_tensor(const Tensor& t, ScalarType type, const Tensor& first, const char* name) {
  const auto type_name = [&] {
    switch (type) {
      case ScalarType::Byte:
        return "uint8";
      case ScalarType::Short:
        return "int16";
      case ScalarType::Long:
        return "int64";
      default:
        return "float32";
    }
  };
  require(t.scalar_type() == type, name, " must be ", type_name());
  require(t.is_cuda() == first.is_cuda() && t.get_device_index() == first.get_device_index(), name,
          " must be on the device of the first tensor");
  require(t.numel() == 0 || t.const_data_ptr() != nullptr, name, " has no memory");
}
inline void check_float(const Tensor& t, const Tensor& first, const char* name) {
  check_tensor(t, ScalarType::Float, first, name);
}
inline void check_codes(const Tensor& t, const Format& f, const Tensor& first, const char* name) {
  check_tensor(t, code_type(f), first, name);
}
inline std::vector<int64_t> sizes_of(const Tensor& t) {
  const auto sizes = t.sizes();
  return std::vector<int64_t>(sizes.begin(), sizes.end());
}
inline void check_same_shape(const Tensor& t, const Tensor& like, const char* name, const char* like_name) {
  require(sizes_of(t) == sizes_of(like), name, " must have the shape of ", like_name);
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

// What a contiguous tensor holds is written in place: none of the others may read it.
inline void check_apart(const Tensor& written, std::initializer_list<const Tensor*> read, const char* name) {
  const auto* begin = static_cast<const char*>(written.const_data_ptr());
  const auto* end = begin + written.numel() * written.element_size();
  for (const Tensor* t : read) {
    if (t->numel() == 0) continue;
    const auto* first = static_cast<const char*>(t->const_data_ptr());
    int64_t last = 1;  // elements up to the one that lies farthest
    for (int64_t d = 0; d < t->dim(); ++d) last += (t->size(d) - 1) * t->stride(d);
    require(first >= end || first + last * t->element_size() <= begin, name, " must share no memory with the others");
  }
}

using Rng = std::optional<Tensor>;

// A random state, which must be there if anything draws from it.
inline void check_rng(const Rng& rng, const Tensor& first, bool draws) {
  require(rng.has_value() || !draws, "stochastic rounding and underflow need rng");
  if (!rng) return;
  check_tensor(*rng, ScalarType::Long, first, "rng");
  require(rng->numel() == std::ssize(kRandomStateFields) && rng->is_contiguous(),
          "rng must be a contiguous tensor [seed, step, tensor id, first element]");
}

// The slices of `dim`, or the whole tensor.
inline Slices slices_of(const Tensor& x, std::optional<int64_t> dim) {
  if (!dim) return whole(x.numel());
  require(*dim >= 0 && *dim < x.dim(), "dim is out of range: ", *dim);
  Slices s = {.outer = 1, .slices = x.size(*dim), .inner = 1};
  for (int64_t d = 0; d < *dim; ++d) s.outer *= x.size(d);
  for (int64_t d = *dim + 1; d < x.dim(); ++d) s.inner *= x.size(d);
  return s;
}

// The slices along which a scale of x's rank varies.
inline Slices slices_of_scale(const Tensor& x, const Tensor& scale) {
  check_float(scale, x, "scale");
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

inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

}  // namespace lns::ops
