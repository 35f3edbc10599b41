// Ctrl-C and SIGTERM as a flag that long loops look at, so that they can save and leave in order.
#pragma once

namespace switchyard {

void catch_interrupts();  // installs the handlers; a second signal ends the process at once
bool interrupted();       // true after the first signal

}  // namespace switchyard
