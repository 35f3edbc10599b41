#include "cli/plan.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "native/bindings.h"
#include "native/json_objects.h"

namespace nb = nanobind;

namespace switchyard {

void bind_plan(nb::module_& module) {
  module.def(
      "plan",
      [](const std::vector<std::string>& arguments) {
        Json json;
        {
          const nb::gil_scoped_release unlocked;
          json = plan_as_json(arguments);
        }
        return to_python(json);
      },
      nb::arg("arguments"));
}

}  // namespace switchyard
