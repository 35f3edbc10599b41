// Small texts that ranks exchange or say: several in one, a number that tells two apart, the gist of an error.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace switchyard {

std::string join_texts(const std::vector<std::string>& texts);
std::vector<std::string> split_texts(const std::string& joined);  // throws Error if it is not join_texts()'s

uint64_t checksum(const std::string& text);  // FNV-1a: the same on every machine

// The first sentence of what a library says, without the place in its source.
std::string summary(const std::exception& error);

}  // namespace switchyard
