#include "cli/standard_output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>

namespace switchyard {

void flush_standard_output() {
  errno = 0;
  std::cout.flush();
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::cout && std::ferror(stdout) == 0) return;
  throw OutputError(std::string("standard output cannot be written") +
                    (errno != 0 ? ": " + std::string(std::strerror(errno)) : ""));
}

}  // namespace switchyard
