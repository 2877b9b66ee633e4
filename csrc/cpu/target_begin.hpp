// Everything between this and target_end.hpp is compiled for one instruction set: the build says which. No include
// guard, and after all other includes: what the standard library defines stays at the baseline, because the linker
// keeps one copy of an inline function, and it must be one that every machine can run.
#if defined(GPGAN_TARGET_X86_64_V4)
#define GPGAN_CPU_NAMESPACE x86_64_v4
#if defined(__clang__)  // which takes the width of vectors from the command line, and defines no __AVX512F__ here
#pragma clang attribute push(__attribute__((target("arch=x86-64-v4"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#endif
#elif defined(GPGAN_TARGET_X86_64_V3)
#define GPGAN_CPU_NAMESPACE x86_64_v3
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=x86-64-v3"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#endif
#else
#define GPGAN_CPU_NAMESPACE baseline
#endif
