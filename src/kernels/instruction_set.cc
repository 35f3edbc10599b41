#include "kernels/instruction_set.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"

// Read by the jumps of cmake/join_kernels.sh. 0, the plain set, for what runs before choose().
extern "C" {
[[gnu::visibility("hidden")]] unsigned switchyard_instruction_set = 0;
}

namespace switchyard::kernels {
namespace {

constexpr std::array<std::string_view, 3> kSets = {"plain", "avx2", "avx512"};

// The sets that this program has and this machine runs.
size_t count_sets() {
#ifdef SWITCHYARD_INSTRUCTION_SETS
  __builtin_cpu_init();
  // The levels by their features, as clang 14 knows no names of levels; what is not asked for came with these.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2")) return 1;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512vnni") ||
      !__builtin_cpu_supports("avx512bf16"))
    return 2;
  return 3;
#else
  return 1;
#endif
}

// The place of SWITCHYARD_ISA among the names: their number if it is none of them. Without it the highest set.
size_t wanted_set(size_t count) {
  const char* wanted = std::getenv("SWITCHYARD_ISA");
  if (wanted == nullptr) return count - 1;
  return static_cast<size_t>(std::find(kSets.begin(), kSets.end(), wanted) - kSets.begin());
}

// Before main, so that no kernel has to ask.
[[gnu::constructor]] void choose() {
  const size_t count = count_sets();
  switchyard_instruction_set = static_cast<unsigned>(std::min(wanted_set(count), count - 1));
}

}  // namespace

const char* instruction_set() {
  const size_t count = count_sets();
  if (wanted_set(count) >= count) {
    std::string names;
    for (size_t set = 0; set < count; ++set) names += join(set == 0 ? "" : ", ", kSets[set]);
    throw Error(join("SWITCHYARD_ISA=", std::getenv("SWITCHYARD_ISA"), ": the kernels of this program run here with ",
                     names, "; name one of them, or unset the variable for the last"));
  }
  return kSets[switchyard_instruction_set].data();
}

}  // namespace switchyard::kernels
