// A log-domain datapath as bare numbers, as core/encoding.h has linear ones, and datapaths of either kind.
#pragma once

#include <iterator>
#include <variant>

#include "core/encoding.h"
#include "core/log_datapath.h"

namespace lns {

constexpr int64_t kLogMarker = -1;  // the first number, where a linear datapath has its bits

struct LogDatapathField {
  const char* name;
  void (*set)(LogDatapath&, int);
  int choices = 0;  // as in DatapathField
};

// A log-domain datapath is these integers, then the numbers of given tables: as many as the last two say.
inline constexpr LogDatapathField kLogDatapathFields[] = {
    {.name = "marker", .set = [](LogDatapath&, int) {}},
    {.name = "bits", .set = [](LogDatapath& d, int v) { d.format.bits = v; }},
    {.name = "gamma", .set = [](LogDatapath& d, int v) { d.format.gamma = v; }},
    {.name = "vector_size", .set = [](LogDatapath& d, int v) { d.vector_size = v; }},
    {.name = "acc_bits", .set = [](LogDatapath& d, int v) { d.acc_bits = v; }},
    {.name = "acc_gamma", .set = [](LogDatapath& d, int v) { d.acc_gamma = v; }},
    {.name = "offset", .set = [](LogDatapath& d, int v) { d.offset = v; }},
    {.name = "order", .set = [](LogDatapath& d, int v) { d.order = static_cast<LogOrder>(v); }, .choices = 2},
    {.name = "underflow",
     .set = [](LogDatapath& d, int v) { d.underflow = static_cast<ProductUnderflow>(v); },
     .choices = 2},
    {.name = "tables", .set = [](LogDatapath& d, int v) { d.tables = static_cast<LogTableKind>(v); }, .choices = 5},
    {.name = "drop", .set = [](LogDatapath& d, int v) { d.drop = v; }},
    {.name = "plus", .set = [](LogDatapath& d, int v) { d.plus.resize(v); }},
    {.name = "minus", .set = [](LogDatapath& d, int v) { d.minus.resize(v); }},
};

// Not validated. Throws where integers are too few, too many or beyond any field's values.
inline LogDatapath decode_log_datapath(const std::vector<int64_t>& v) {
  constexpr int64_t fields = std::size(kLogDatapathFields), most = 2 * kMostLogEntries;
  const auto fail = [](const std::string& what) {
    throw std::invalid_argument("an encoded log-domain datapath " + what);
  };
  if (std::ssize(v) < fields)
    fail("is " + std::to_string(fields) + " integers or more, got " + std::to_string(v.size()));
  LogDatapath d = {};
  for (int64_t i = 0; i < fields; ++i) {
    const LogDatapathField& f = kLogDatapathFields[i];
    const int value = static_cast<int>(v[i]);
    const bool count = i >= fields - 2;
    if (v[i] != value || (f.choices > 0 && (value < 0 || value >= f.choices)) || (count && (value < 0 || value > most)))
      fail("has " + std::to_string(v[i]) + " for " + f.name);
    f.set(d, value);
  }
  const int64_t all = fields + std::ssize(d.plus) + std::ssize(d.minus);
  if (std::ssize(v) != all)
    fail("with these tables is " + std::to_string(all) + " integers, got " + std::to_string(v.size()));
  std::copy_n(v.begin() + fields, d.plus.size(), d.plus.begin());
  std::copy(v.begin() + fields + std::ssize(d.plus), v.end(), d.minus.begin());
  return d;
}

using AnyDatapath = std::variant<Datapath, LogDatapath>;

// Not validated.
inline AnyDatapath decode_any_datapath(const std::vector<int64_t>& v) {
  if (!v.empty() && v[0] == kLogMarker) return decode_log_datapath(v);
  return decode_datapath(v);
}
inline const Format& format_of(const AnyDatapath& d) {
  return std::visit([](const auto& one) -> const Format& { return one.format; }, d);
}
// How many neighbouring lanes belong together: K is cut between them only.
inline int lanes_together(const AnyDatapath& d) {
  const auto* log = std::get_if<LogDatapath>(&d);
  return log ? log->lanes_together() : std::get<Datapath>(d).vector_size;
}

}  // namespace lns
