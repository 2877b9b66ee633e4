#include <pybind11/pybind11.h>

#include <exception>
#include <utility>

#include "gpgan/error.hpp"
#include "register.hpp"

namespace gpgan::bindings {
namespace {

// A wrong argument is a ValueError like any other; the rest keeps pybind11's translation to RuntimeError.
void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(std::move(thrown));
  } catch (const InvalidArgument& error) {
    pybind11::set_error(PyExc_ValueError, error.what());
  }
}

}  // namespace

void register_errors() { pybind11::register_local_exception_translator(&translate); }

}  // namespace gpgan::bindings
