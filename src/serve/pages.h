// The pages that servers show to people: each one text, with its style and its script, from src/serve/pages/.
#pragma once

#include <string>

namespace switchyard {

std::string serve_page();  // of `switchyard serve`: a prompt, its answer as it comes, experts by token, load, alarms

}  // namespace switchyard
