// The choice of the instruction set, made once, when the first op runs.
#include "cpu_level.h"

#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

namespace detkit {
namespace {

struct Level {
  const char* name;
  CpuLevel level;
};

constexpr Level LEVELS[] = {
#ifndef __x86_64__
    {"any", CpuLevel::any_level},
#else
    {"x86-64-v2", CpuLevel::any_level},
    {"x86-64-v3", CpuLevel::x86_64_v3},
    {"x86-64-v4", CpuLevel::x86_64_v4},
#endif
};

size_t best_of_this_processor() {
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  return v4 ? 2 : v3 ? 1 : 0;
#else
  return 0;
#endif
}

size_t choose() {
  const size_t best = best_of_this_processor();
  const char* wanted = std::getenv("DETKIT_CPU");
  if (wanted == nullptr || *wanted == '\0') {
    return best;
  }
  std::string names;
  for (size_t index = 0; index <= best; ++index) {
    if (std::string(wanted) == LEVELS[index].name) {
      return index;
    }
    names += std::string(names.empty() ? "" : ", ") + LEVELS[index].name;
  }
  throw std::runtime_error(
      "detkit: DETKIT_CPU is " + std::string(wanted) + "; this processor and build have " + names);
}

const Level& chosen() {
  static const size_t index = choose();
  return LEVELS[index];
}

}  // namespace

CpuLevel cpu_level() {
  return chosen().level;
}

}  // namespace detkit

// For python -m detkit.doctor: the name of the level in use; null where DETKIT_CPU names none.
extern "C" __attribute__((visibility("default"))) const char* detkit_cpu_level() {
  try {
    return detkit::chosen().name;
  } catch (const std::exception&) {
    return nullptr;
  }
}
