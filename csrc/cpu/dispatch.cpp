#include "cpu/dispatch.hpp"

#include <cstdlib>

namespace gpgan::cpu {

// backend.cpp, once for each instruction set.
namespace baseline {
std::unique_ptr<core::Backend> make_backend(int threads);
}
namespace x86_64_v3 {
std::unique_ptr<core::Backend> make_backend(int threads);
}
namespace x86_64_v4 {
std::unique_ptr<core::Backend> make_backend(int threads);
}

namespace {

struct Target {
  const char* name;
  bool (*runs_here)();
  std::unique_ptr<core::Backend> (*make_backend)(int threads);
};

#if defined(GPGAN_CPU_DISPATCH)
// The features of the x86-64 psABI's levels. That the operating system saves the wide registers is part of what the
// builtin says.
bool has_x86_64_v3() {
#if !defined(__clang__)  // whose builtin does not know these names; no processor has AVX2 and BMI2 without them
  if (!__builtin_cpu_supports("f16c") || !__builtin_cpu_supports("lzcnt") || !__builtin_cpu_supports("movbe")) {
    return false;
  }
#endif
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("avx") &&
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("fma");
}
bool has_x86_64_v4() {
  return has_x86_64_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// From what every machine has to what is best.
constexpr Target kTargets[] = {
    {"baseline", [] { return true; }, &baseline::make_backend},
#if defined(GPGAN_CPU_DISPATCH)
    {"x86-64-v3", &has_x86_64_v3, &x86_64_v3::make_backend},
    {"x86-64-v4", &has_x86_64_v4, &x86_64_v4::make_backend},
#endif
};

const Target& choose() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): read only; nobody here calls setenv.
  const char* said = std::getenv("GPGAN_CPU_TARGET");
  const bool forced = said != nullptr && *said != '\0';
  const Target* best = nullptr;
  for (const Target& target : kTargets) {
    if (target.runs_here() && (!forced || said == std::string(target.name))) best = &target;
  }
  if (best != nullptr) return *best;
  std::string expected = "one of those that this machine can run,";
  for (const std::string& name : available_targets()) expected.append(" '").append(name).append("'");
  throw InvalidArgument("GPGAN_CPU_TARGET", expected, std::string("'").append(said).append("'"));
}

}  // namespace

std::unique_ptr<core::Backend> make_best_backend(int threads) { return choose().make_backend(threads); }

std::string chosen_target() { return choose().name; }

std::vector<std::string> available_targets() {
  std::vector<std::string> names;
  for (const Target& target : kTargets) {
    if (target.runs_here()) names.emplace_back(target.name);
  }
  return names;
}

}  // namespace gpgan::cpu
