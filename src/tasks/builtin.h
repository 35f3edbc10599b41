// The files of configs/tasks as the program carries them: made at build time, by embed.cmake.
#pragma once

#include <span>
#include <string_view>

namespace switchyard {

struct BuiltinTask {
  std::string_view name;  // the file's, without .toml
  std::string_view toml;
};

std::span<const BuiltinTask> builtin_tasks();  // by name

}  // namespace switchyard
