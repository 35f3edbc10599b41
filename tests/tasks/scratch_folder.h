// Scratch folders, and the messages of errors.
#pragma once

#include <exception>
#include <string>

#include "testing/scratch_folder.h"

namespace switchyard {

using test::ScratchFolder;

// The message of the Error that `action` throws; "" if it throws none.
template <class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace switchyard
