// A scratch folder with runs in it.
#pragma once

#include "testing/scratch_folder.h"

namespace switchyard {

class RunFolder : public test::ScratchFolder {
 public:
  // Writes the file `name` of a run, for example "sparse/metrics.jsonl"; gives the run's folder.
  std::filesystem::path put(const std::string& name, std::string_view text) const {
    return write(name, text).parent_path();
  }
};

}  // namespace switchyard
