// Small texts that ranks exchange: several in one, and a number that tells two apart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

std::string join_texts(const std::vector<std::string>& texts);
std::vector<std::string> split_texts(const std::string& joined);  // throws Error if it is not join_texts()'s

uint64_t checksum(const std::string& text);  // FNV-1a: the same on every machine

}  // namespace switchyard
