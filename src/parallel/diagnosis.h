// Why a collective failed, told from what every rank last said about itself. Plain C++: nothing is read or sent here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace switchyard {

// A collective, as its ranks count them: number `number`, from 1, of its group.
struct CollectivePlace {
  std::string kind, group;  // kind "": in no collective
  int64_t number = 0;
};
std::string describe(const CollectivePlace& place);  // "all-to-all 12 of group expert-0"

// What a rank says about itself again and again. One whose `count` stays the same says nothing any more.
struct Beat {
  enum class State { kRunning, kEnded, kFailed };  // ended: it had nothing left to do; failed: by an error of its own

  int64_t count = 0;
  State state = State::kRunning;
  CollectivePlace place = {};                   // that it waits in
  double seconds = 0.0;                         // since it came there, or left the last one
  std::map<std::string, int64_t> started = {};  // collectives by group
};
std::string beat_text(const Beat& beat);
Beat parse_beat(const std::string& text);  // throws Error

// What another rank has seen of it.
struct ObservedRank {
  bool connected = false;
  Beat beat;
  double silent_seconds = 0.0;  // since `count` last changed
  bool silent = false;          // long enough to be called dead
};

// The cause, naming ranks, as far as it can be told. `ranks`: all of the run; `members`: those of the place's group;
// `rank`: who asks, whose beat is that of the place.
std::string explain(const CollectivePlace& place, const std::vector<int64_t>& members, int64_t rank,
                    const std::vector<ObservedRank>& ranks);

}  // namespace switchyard
