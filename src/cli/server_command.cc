#include "cli/server_command.h"

#include <iostream>

#include "base/json.h"

namespace switchyard {

void announce(const std::string& what, const std::string& host, int port, const std::string& remark, bool json) {
  const auto place = join("http://", host, ":", port);
  say("serving ", what, " at ", place, " (", remark, "Ctrl-C ends)");
  if (json) std::cout << Json{{"serving", what}, {"at", place}}.dump() << std::endl;
}

}  // namespace switchyard
