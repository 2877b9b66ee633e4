// Vectors in the compiler's own notation: the same source for SSE2, AVX2, AVX-512 and NEON.
#pragma once

#include <cstddef>

#include "cpu/target_begin.hpp"

// GPGAN_UNROLL: for loops over arrays that are to live in registers, which a loop that stays a loop would index in
// memory. GPGAN_KEEP_LOOP: for short loops around many registers' worth of code.
#if defined(__clang__)
#define GPGAN_UNROLL _Pragma("unroll")
#define GPGAN_KEEP_LOOP _Pragma("nounroll")
#elif defined(__GNUC__)
#define GPGAN_UNROLL _Pragma("GCC unroll 16")
#define GPGAN_KEEP_LOOP _Pragma("GCC unroll 1")
#else
#define GPGAN_UNROLL
#define GPGAN_KEEP_LOOP
#endif

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// Floats in the widest register of the instruction set.
#if defined(GPGAN_TARGET_X86_64_V4) || defined(__AVX512F__)
constexpr int kNativeFloats = 16;
#elif defined(GPGAN_TARGET_X86_64_V3) || defined(__AVX__)
constexpr int kNativeFloats = 8;
#else
constexpr int kNativeFloats = 4;
#endif

// A register of kFloats, at most kNativeFloats: a larger vector of the compiler's would live in memory.
template <int kFloats>
struct RegisterOf {
  // Attributes that only a typedef takes.
  // NOLINTNEXTLINE(modernize-use-using)
  typedef float Type __attribute__((vector_size(kFloats * sizeof(float))));
  // NOLINTNEXTLINE(modernize-use-using)
  typedef float Unaligned __attribute__((vector_size(kFloats * sizeof(float)), aligned(4), may_alias));
};
template <int kFloats>
using Register = typename RegisterOf<kFloats>::Type;

// 64 bytes is the alignment that no load crosses a cache line with; none is required.
template <int kFloats>
inline Register<kFloats> load_register(const float* from) {
  return *reinterpret_cast<const typename RegisterOf<kFloats>::Unaligned*>(from);
}
template <int kFloats>
inline void store_register(float* to, Register<kFloats> value) {
  *reinterpret_cast<typename RegisterOf<kFloats>::Unaligned*>(to) = value;
}

// Sixteen floats, one cache line, in as many registers as that takes.
struct V {
  static constexpr int kFloats = 16;
  static constexpr int kParts = kFloats / kNativeFloats;
  Register<kNativeFloats> part[kParts];
};

inline V load(const float* from) {
  V v;
  GPGAN_UNROLL
  for (int i = 0; i < V::kParts; ++i) v.part[i] = load_register<kNativeFloats>(from + i * kNativeFloats);
  return v;
}

inline void store(float* to, const V& v) {
  GPGAN_UNROLL
  for (int i = 0; i < V::kParts; ++i) store_register<kNativeFloats>(to + i * kNativeFloats, v.part[i]);
}

inline V broadcast(float s) {
  V v;
  GPGAN_UNROLL
  for (auto& part : v.part) part = Register<kNativeFloats>{} + s;
  return v;
}

inline V operator+(const V& a, const V& b) {
  V v;
  GPGAN_UNROLL
  for (int i = 0; i < V::kParts; ++i) v.part[i] = a.part[i] + b.part[i];
  return v;
}
inline V operator-(const V& a, const V& b) {
  V v;
  GPGAN_UNROLL
  for (int i = 0; i < V::kParts; ++i) v.part[i] = a.part[i] - b.part[i];
  return v;
}
inline V operator*(const V& a, const V& b) {
  V v;
  GPGAN_UNROLL
  for (int i = 0; i < V::kParts; ++i) v.part[i] = a.part[i] * b.part[i];
  return v;
}
inline V operator*(float s, const V& a) {
  V v;
  GPGAN_UNROLL
  for (int i = 0; i < V::kParts; ++i) v.part[i] = s * a.part[i];
  return v;
}

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
