// The pages that servers show to people: each one text, with its style and its script, from src/serve/pages/.
#pragma once

#include <string>

namespace switchyard {

std::string serve_page();  // of `switchyard serve`: a prompt, its answer as it comes, experts by token, load, alarms

// Of `switchyard watch`: progress, alarms, load, and the sections of a report, whose style and script are given.
std::string watch_page(const std::string& style, const std::string& script);

}  // namespace switchyard
