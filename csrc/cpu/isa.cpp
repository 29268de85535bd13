// Which instruction set's kernels run: found once, forced by LNS_SIM_ISA or set_isa.
#include <cstdlib>
#include <stdexcept>

#include "cpu/kernels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace lns::cpu {

namespace baseline {
extern const Kernels table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512_vnni {
const Kernels& table();
}
#elif defined(__aarch64__)
namespace neon_dotprod {
const Kernels& table();
}
#endif

namespace {

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found = {&baseline::table};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  if (avx2) found.push_back(&avx2::table);
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) found.push_back(&avx512::table);
  if (avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni"))
    found.push_back(&avx512_vnni::table());
#elif defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found.push_back(&neon_dotprod::table());
#endif
  return found;
}

const Kernels* find(const std::string& name, const std::string& asked_by) {
  std::string names;
  for (const Kernels* k : available()) {
    if (name == k->name) return k;
    names += std::string(names.empty() ? "" : ", ") + k->name;
  }
  throw std::invalid_argument(asked_by + " asks for '" + name + "', but this machine runs " + names);
}

const Kernels* initial() {
  const char* forced = std::getenv("LNS_SIM_ISA");
  return forced && *forced ? find(forced, "LNS_SIM_ISA") : available().back();
}

const Kernels*& current() {
  static const Kernels* chosen = initial();
  return chosen;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* k : available()) names.push_back(k->name);
  return names;
}

const Kernels& kernels() { return *current(); }
void set_isa(const std::string& name) { current() = find(name, "set_isa"); }

}  // namespace lns::cpu
