// Indices [begin, end) of one axis.
#pragma once

#include <cstdint>

namespace switchyard {

struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Slice&) const = default;
};

}  // namespace switchyard
