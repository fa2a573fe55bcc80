// The instruction sets that the hot loops are compiled for, and the one that is in use.
#pragma once

namespace detkit {

// any_level is the compiler's own baseline (x86-64-v2 on x86). setup.py has the same list.
enum class CpuLevel { any_level, x86_64_v3, x86_64_v4 };

// The best that this processor has, or the lower one that the environment variable DETKIT_CPU names. Throws
// std::runtime_error where that is none, or more than the processor has.
CpuLevel cpu_level();

// Calls function<level>() with the level in use.
template <typename Function>
auto at_cpu_level(const Function& function) {
  switch (cpu_level()) {
#ifdef __x86_64__
    case CpuLevel::x86_64_v4:
      return function.template operator()<CpuLevel::x86_64_v4>();
    case CpuLevel::x86_64_v3:
      return function.template operator()<CpuLevel::x86_64_v3>();
#endif
    default:
      return function.template operator()<CpuLevel::any_level>();
  }
}

}  // namespace detkit
