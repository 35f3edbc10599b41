// Time for measuring: seconds on the steady clock, from an arbitrary start.
#pragma once

#include <chrono>

namespace switchyard {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace switchyard
