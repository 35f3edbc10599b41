// switchyard inspect --memory RUN: what a process of a run in training holds at its fullest moment.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct InspectMemory {
  bool enabled = false;
  std::string subject;                                 // run file, run's folder or preset
  std::vector<std::string> settings;                   // of a run file
  int64_t batch = 8;                                   // sequences of a step, for a preset
  int64_t encoder_length = 512, decoder_length = 114;  // likewise
  bool is_bf16 = true;                                 // likewise
  bool json = false;
};

void inspect_memory(const InspectMemory& command);

}  // namespace switchyard
