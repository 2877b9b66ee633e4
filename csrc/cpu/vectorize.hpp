// Leave to turn a loop into vector code where the compiler cannot see that its arrays are apart.
#pragma once

#if defined(__clang__)
#define GPGAN_INDEPENDENT_LOOP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define GPGAN_INDEPENDENT_LOOP _Pragma("GCC ivdep")
#else
#define GPGAN_INDEPENDENT_LOOP
#endif
