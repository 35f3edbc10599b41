// What is said when something is refused.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace switchyard::test {

// The message of the Error that `action` throws; a failure if it throws none.
template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return "";
}

}  // namespace switchyard::test
