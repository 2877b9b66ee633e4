// gpgan._core: a table of contents.
#include <pybind11/pybind11.h>

#include "core/backend.hpp"
#include "register.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() =
      "The native core of gpgan. Use the public functions of the package; this module may change at any "
      "time.";
  gpgan::bindings::register_errors();
  gpgan::bindings::register_info(m);
  gpgan::bindings::register_blender(m);
  gpgan::bindings::register_ops(m, {&gpgan::core::make_backend, "threads", true});
}
