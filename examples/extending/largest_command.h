// A command of one's own.
#pragma once

#include <CLI/CLI.hpp>

namespace switchyard::examples {

void add_largest(CLI::App& app);

}  // namespace switchyard::examples
