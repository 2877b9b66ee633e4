// The CPU backend: each operation in the file of its name.
#pragma once

#include <memory>
#include <string>

#include "core/backend.hpp"

namespace gpgan::cpu {

std::unique_ptr<core::Backend> make_backend(int threads);
std::string target();

}  // namespace gpgan::cpu
