#include "base/error.h"
#include "kernels/instruction_set.h"
#include "native/bindings.h"
#include "native/json_objects.h"

namespace nb = nanobind;

NB_MODULE(_native, module) {
  // At the interpreter's end objects that the main program still names are no leaks of ours.
  nb::set_leak_warnings(false);
  // An Error is about input or usage: what Python calls a ValueError.
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const switchyard::Error& error) {
      PyErr_SetObject(PyExc_ValueError, switchyard::to_python(std::string(error.what())).ptr());
    }
  });
  module.attr("__version__") = SWITCHYARD_VERSION;
  module.attr("torch_version") = SWITCHYARD_TORCH_VERSION;
  module.attr("instructions") = nb::str(switchyard::kernels::instruction_set());
  switchyard::bind_messages(module);
  switchyard::bind_vocabulary(module);
  switchyard::bind_model(module);
  switchyard::bind_generation(module);
  switchyard::bind_training(module);
  switchyard::bind_plan(module);
}
