// A datapath's product table in the forms that the kernel paths read. Each form is compared with the table, product by
// product, and left out where it differs: an option that a form does not know can never be computed by it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/datapath.h"
#include "cpu/kernels.h"
#include "cpu/permute.h"

namespace lns::cpu {

// Do the row path's tables hold the products as high * 2^shift + low?
bool reproduces(const SignedProducts& low, const SignedProducts& high, int shift, const std::vector<int64_t>& product);

struct Tables {
  explicit Tables(const Datapath& d);

  bool narrow;      // the accumulator state fits 32 bits
  bool apart32;     // a vector's sum does, and so does the accumulator with it once aligned
  bool rows;        // the row path has tables
  int plane_shift;  // a product is high * 2^plane_shift + low; 0 where narrow, which needs no high plane
  bool one_plane;   // high is always 0
  int zero_start;   // where the look-up tables continue with zeros: the exponent given to zero codes
  std::optional<PermuteTables<uint8_t>> permute8;
  std::optional<PermuteTables<int16_t>> permute16;
  SignedProducts low, high;
  std::vector<int32_t> lookup32;  // where narrow
  std::vector<int64_t> lookup64;  // else
  LaneTable lanes;                // bins, as constants
  std::vector<int64_t> constants;
};

}  // namespace lns::cpu
