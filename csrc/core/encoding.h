// What reaches the operators as bare numbers: the order of their fields, by name. The bindings export the names, and
// the library compares them with its own (lns_sim/contract.py) before it sends any.
#pragma once

#include <iterator>

#include "core/datapath.h"
#include "core/madam.h"

namespace lns {

constexpr int kContractVersion = 1;  // to be raised when a field changes its meaning but not its name

struct DatapathField {
  const char* name;
  void (*set)(Datapath&, int);
  int choices = 0;  // an option's values are 0 .. choices - 1; 0: a number, which validate() checks
};

// A datapath is these integers, then as many LUT constants as the last one says.
inline constexpr DatapathField kDatapathFields[] = {
    {.name = "bits", .set = [](Datapath& d, int v) { d.format.bits = v; }},
    {.name = "gamma", .set = [](Datapath& d, int v) { d.format.gamma = v; }},
    {.name = "vector_size", .set = [](Datapath& d, int v) { d.vector_size = v; }},
    {.name = "lut_entries", .set = [](Datapath& d, int v) { d.lut_entries = v; }},
    {.name = "lut_bits", .set = [](Datapath& d, int v) { d.lut_bits = v; }},
    {.name = "acc_bits", .set = [](Datapath& d, int v) { d.acc_bits = v; }},
    {.name = "acc_lsb", .set = [](Datapath& d, int v) { d.acc_lsb = v; }},
    {.name = "rounding", .set = [](Datapath& d, int v) { d.rounding = static_cast<Alignment>(v); }, .choices = 2},
    {.name = "overflow", .set = [](Datapath& d, int v) { d.overflow = static_cast<Overflow>(v); }, .choices = 2},
    {.name = "product_offset", .set = [](Datapath& d, int v) { d.product_offset = v; }},
    {.name = "product_low", .set = [](Datapath& d, int v) { d.product_low = v; }},
    {.name = "product_high", .set = [](Datapath& d, int v) { d.product_high = v; }},
    {.name = "product_underflow",
     .set = [](Datapath& d, int v) { d.product_underflow = static_cast<ProductUnderflow>(v); },
     .choices = 2},
    {.name = "bin_bits", .set = [](Datapath& d, int v) { d.bin_bits = v; }},
    {.name = "bin_overflow",
     .set = [](Datapath& d, int v) { d.bin_overflow = static_cast<Overflow>(v); },
     .choices = 2},
    {.name = "bins", .set = [](Datapath& d, int v) { d.bins = static_cast<Bins>(v); }, .choices = 2},
    {.name = "keep_fraction", .set = [](Datapath& d, int v) { d.keep_fraction = v != 0; }, .choices = 2},
    {.name = "lut_constants", .set = [](Datapath& d, int v) { d.given_constants = v; }},
};

// Not validated. Throws where integers are too few, too many or beyond any field's values.
inline Datapath decode_datapath(const std::vector<int64_t>& v) {
  constexpr size_t fields = std::size(kDatapathFields);
  const auto fail = [](const std::string& what) { throw std::invalid_argument("an encoded datapath " + what); };
  const auto as_int = [&](int64_t n, const char* name) {
    if (n != static_cast<int>(n)) fail("has " + std::to_string(n) + " for " + name);
    return static_cast<int>(n);
  };
  if (v.size() < fields) fail("is " + std::to_string(fields) + " integers or more, got " + std::to_string(v.size()));
  Datapath d = {};
  for (size_t i = 0; i < fields; ++i) {
    const DatapathField& f = kDatapathFields[i];
    const int value = as_int(v[i], f.name);
    if (f.choices > 0 && (value < 0 || value >= f.choices)) fail("has " + std::to_string(value) + " for " + f.name);
    f.set(d, value);
  }
  if (d.given_constants < 0 || d.given_constants > kGivenConstants)
    throw std::invalid_argument("up to " + std::to_string(kGivenConstants) + " LUT constants can be given, got " +
                                std::to_string(d.given_constants));
  if (v.size() != fields + d.given_constants)
    fail("with " + std::to_string(d.given_constants) + " LUT constants is " +
         std::to_string(fields + d.given_constants) + " integers, got " + std::to_string(v.size()));
  for (int j = 0; j < d.given_constants; ++j) d.constants[j] = as_int(v[fields + j], "a LUT constant");
  if (const int g = d.format.gamma; d.product_offset != 0 && is_power_of_two(g) && g <= 1 << 15) {
    d.offset_octaves = d.product_offset >> log2_exact(g);
    d.offset_mantissa = static_cast<int32_t>(round_pow2(d.product_offset & (g - 1), g, 23));
  }
  return d;
}

inline constexpr const char* kRandomStateFields[] = {"seed", "step", "tensor_id", "first_element"};

// Null stands for no random state.
LNS_HD inline RandomState decode_random_state(const int64_t* v) {
  if (v == nullptr) return {};
  return {.seed = static_cast<uint64_t>(v[0]),
          .step = static_cast<uint32_t>(v[1]),
          .tensor = static_cast<uint32_t>(v[2]),
          .first = static_cast<uint64_t>(v[3])};
}

inline constexpr const char* kMadamFields[] = {"beta", "one_minus_beta", "bias_correction", "bound", "codes_per_unit"};

LNS_HD inline MadamStep decode_madam(const float* v, bool stochastic) {
  return {.beta = v[0],
          .one_minus_beta = v[1],
          .bias_correction = v[2],
          .bound = v[3],
          .codes_per_unit = v[4],
          .stochastic = stochastic};
}

}  // namespace lns
