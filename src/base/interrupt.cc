#include "base/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

namespace switchyard {
namespace {

std::atomic<bool> g_interrupted{false};  // a signal handler can reach nothing but a global

void on_signal(int) {
  if (g_interrupted.exchange(true)) ::_exit(130);
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() { return g_interrupted.load(); }

}  // namespace switchyard
