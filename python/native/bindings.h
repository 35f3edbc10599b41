// switchyard._native: the libraries as the package's Python code uses them. One function a part of the module, each in
// a file of its name. Everything that computes lets go of Python's lock first, and returns within about a step, so that
// Ctrl-C is heard between two calls.
#pragma once

#include <nanobind/nanobind.h>

namespace switchyard {

void bind_vocabulary(nanobind::module_& module);
void bind_model(nanobind::module_& module);
void bind_generation(nanobind::module_& module);
void bind_training(nanobind::module_& module);
void bind_plan(nanobind::module_& module);
void bind_messages(nanobind::module_& module);

}  // namespace switchyard
