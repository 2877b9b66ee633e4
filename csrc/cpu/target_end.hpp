// See target_begin.hpp.
#undef GPGAN_CPU_NAMESPACE
#if defined(GPGAN_TARGET_X86_64_V4) || defined(GPGAN_TARGET_X86_64_V3)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
