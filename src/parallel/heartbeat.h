// One thread a rank that says "alive, and in this collective" through the store at which the ranks met, and reads what
// the others say when something fails. All traffic with the store after the start goes through this thread, so that
// nobody else blocks where its holder is gone.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/diagnosis.h"

namespace switchyard {

// Texts by key that all ranks see. Calls throw where the store is gone, and block while its holder does not answer.
class TextStore {
 public:
  virtual ~TextStore() = default;
  virtual void set(const std::string& key, const std::string& value) = 0;
  virtual std::optional<std::string> find(const std::string& key) = 0;
  // The value that the key has now: this one if it had none.
  virtual std::string set_if_absent(const std::string& key, const std::string& value) = 0;
};

struct HeartbeatOptions {
  int64_t rank = 0, num_ranks = 1;
  double beat_seconds = 1.0;
  std::string holder;        // "rank 0 (host:port)": who is gone if the store is
  bool holds_store = false;  // this rank's end is the store's end
};

class Heartbeat {
 public:
  Heartbeat(std::shared_ptr<TextStore> store, const HeartbeatOptions& options);
  // Says how this rank ends and stops the thread; one that is stuck in the store is left behind. At an end without
  // failure it waits until the others have ended, after one the store's holder does, for 10 s at most.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // By the thread that computes: a collective has been started; it waits in it; it waits no longer.
  CollectivePlace start(const std::string& kind, const std::string& group);
  void enter(const CollectivePlace& place);
  void leave();

  // Whether the run has failed, as another rank has told or because the store is gone. Costs nothing.
  bool failed() const;
  // Until leave(), the other ranks' beats are read as well.
  void watch();
  // Why the collective failed, told to all ranks: after it the run has failed. Unless the cause is known it takes as
  // long as a few beats of the others. An interrupted rank (base/interrupt.h) does not wait for them.
  std::string diagnose(const CollectivePlace& place, const std::vector<int64_t>& members);
  void end_with_error();  // this rank's own: the others are told

  // Calls step(store) on the heartbeat's thread, again and again until it returns true. False where that does not
  // happen within `seconds` or the run fails. The last call may not have returned by then: `step` owns what it uses.
  bool until(double seconds, std::function<bool(TextStore&)> step);
  // The texts of `size` ranks that call it with one `prefix`, by their `index`; nullopt as false above. Number 0
  // collects them, so that each of the others reads one text.
  std::optional<std::vector<std::string>> gather(const std::string& prefix, int64_t index, int64_t size,
                                                 const std::string& mine, double seconds);

 private:
  struct State;
  static void run(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace switchyard
