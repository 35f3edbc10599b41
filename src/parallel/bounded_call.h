// A call into a library that may block for good where the other side does not answer.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <stdexcept>
#include <thread>

namespace switchyard {

// Runs make() on a thread of its own, which is left behind after `seconds`; so make owns what it uses. Throws what it
// throws, and std::runtime_error where it does not return in time.
template <class T>
T bounded_call(double seconds, std::function<T()> make) {
  std::packaged_task<T()> task(std::move(make));
  auto made = task.get_future();
  std::thread(std::move(task)).detach();
  if (made.wait_for(std::chrono::duration<double>(seconds)) != std::future_status::ready)
    throw std::runtime_error("no answer");
  return made.get();
}

}  // namespace switchyard
