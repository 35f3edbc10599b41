// Temporary files of writers that replace a file in one step (base/files.h): named so that no two writers meet, on one
// machine or on a folder that several share, and recognised once their writer was killed.
#pragma once

#include <filesystem>

namespace switchyard {

struct TemporaryFile {
  std::filesystem::path path;
  int descriptor = -1;  // for writing; it holds a lock on the file until it is closed
};

// A new file in `folder`. Throws Error, saying that `target` cannot be written, if the system refuses.
TemporaryFile make_temporary(const std::filesystem::path& folder, const std::filesystem::path& target);

// Removes temporaries in `folder` whose writers are dead: files that carry this program's name for them and this boot
// of this machine, and on which nobody holds the lock. Those of other machines stay, as a lock need not reach so far.
void remove_abandoned_temporaries(const std::filesystem::path& folder);

}  // namespace switchyard
