// JSON from files, which may be anybody's: parsed with a bound on depth, keys and values, so that a text takes memory
// in proportion to what a file of its kind can hold.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace switchyard {

using Json = nlohmann::ordered_json;  // keeps the order of keys, and finds one by looking at each
using LargeJson = nlohmann::json;     // finds a key in a tree: for objects of thousands

// Throws Error naming `source` and the byte for a text that is not JSON, is nested deeper than 64 or has more than
// 4 million values; parse_json also for more than 20,000 keys.
Json parse_json(std::string_view text, const std::string& source);
LargeJson parse_large_json(std::string_view text, const std::string& source);

}  // namespace switchyard
