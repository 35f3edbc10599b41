// One self-contained HTML page about training runs: no scripts, fonts or pictures from elsewhere; light and dark.
#pragma once

#include <string>

#include "report/run_log.h"

namespace switchyard {

std::string make_page(const ReportInput& input);

// What stands on it below its title, for a page of another's that has kPageStyle and kPageScript (page_assets.h).
std::string make_sections(const ReportInput& input);

}  // namespace switchyard
