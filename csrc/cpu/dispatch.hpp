// The choice among the instruction sets that the kernels were compiled for, at run time, in one place.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace gpgan::cpu {

// The best that the machine can run, or what GPGAN_CPU_TARGET names: read at every call, so that a backend is made for
// what it says then. Throws InvalidArgument for a name that is unknown or that this machine cannot run.
std::unique_ptr<core::Backend> make_best_backend(int threads);
std::string chosen_target();

std::vector<std::string> available_targets();  // those that this machine can run, the best last

}  // namespace gpgan::cpu
