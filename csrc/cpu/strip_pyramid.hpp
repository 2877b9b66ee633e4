#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/pyramid.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

// A pyramid that needs little memory and time; null for options that it cannot serve.
std::unique_ptr<core::Pyramid> make_strip_pyramid(const Options& options, const std::vector<core::Size>& sizes,
                                                  std::int64_t channels, int threads);

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
