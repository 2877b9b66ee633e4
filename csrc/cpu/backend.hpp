// The CPU backend: each operation in the file of its name.
#pragma once

#include <memory>

#include "core/backend.hpp"

#include "cpu/target_begin.hpp"

namespace gpgan::cpu {
inline namespace GPGAN_CPU_NAMESPACE {

std::unique_ptr<core::Backend> make_backend(int threads);

}  // namespace GPGAN_CPU_NAMESPACE
}  // namespace gpgan::cpu

#include "cpu/target_end.hpp"
