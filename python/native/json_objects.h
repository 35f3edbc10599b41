// JSON, in which the libraries take requests and give results, as Python's objects and back.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "base/json.h"

namespace switchyard {

// Bytes that are no UTF-8 (a vocabulary can make such text) become U+FFFD.
nanobind::str to_python(const std::string& text);
nanobind::object to_python(const Json& json);

// None, bool, numbers, str, paths, lists, tuples and dicts with str keys, at any depth up to 64. Throws Error naming
// `place` for anything else.
Json to_json(nanobind::handle object, const std::string& place);

}  // namespace switchyard
