// gpgan._core: a table of contents.
#include <pybind11/pybind11.h>

#include "gpgan/error.hpp"
#include "register.hpp"

namespace {

// A wrong argument is a ValueError like any other; the rest keeps pybind11's translation to RuntimeError.
void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const gpgan::InvalidArgument& error) {
    pybind11::set_error(PyExc_ValueError, error.what());
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() =
      "The native core of gpgan. Use the public functions of the package; this module may change at any "
      "time.";
  pybind11::register_exception_translator(&translate);
  gpgan::bindings::register_info(m);
  gpgan::bindings::register_blender(m);
  gpgan::bindings::register_ops(m);
}
