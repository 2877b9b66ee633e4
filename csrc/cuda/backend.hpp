// The CUDA backend: each operation in the file of its name.
#pragma once

#include <memory>

#include "core/backend.hpp"
#include "gpgan/cuda.hpp"

namespace gpgan::cuda {

std::unique_ptr<core::Backend> make_backend(const Device& device);

}  // namespace gpgan::cuda
