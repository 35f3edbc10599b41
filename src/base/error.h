// The one exception type and the one check. An Error is about input or usage (a file, a key, a shape): main prints its
// message and exits with 2. Anything else that is thrown is a defect or a failing machine and exits with 1.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace switchyard {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Streams every part into one string; used by SY_CHECK, and wherever a message is put together.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace switchyard

// Throws Error(parts...) if the condition is false; the parts are formatted only then. A message names the place, what
// was expected, what came, and what to do.
#define SY_CHECK(condition, ...)                                                  \
  do {                                                                            \
    if (!(condition)) throw ::switchyard::Error(::switchyard::join(__VA_ARGS__)); \
  } while (false)
