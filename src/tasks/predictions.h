// Outputs of a model beside a split's examples: {"prediction": text} a line, further fields allowed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard {

// Throws Error, naming file and line, for a line without a text "prediction", and if there are not `count` lines.
std::vector<std::string> read_predictions(const std::filesystem::path& path, size_t count);

}  // namespace switchyard
