// What a launcher (torchrun, Open MPI, Slurm) tells a process about the run that it is part of, read from the
// environment. Nothing is connected here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace switchyard {

struct Launch {
  int64_t rank = 0, num_ranks = 1;
  int64_t local_rank = 0, local_size = 1;  // among the ranks on this machine
  std::string store_host = "127.0.0.1";    // where the ranks find each other
  int store_port = 0;
  bool agent_hosts_store = false;  // torchrun's agent listens there; else rank 0 does
  int64_t restart = 0;             // how often the launcher has started these ranks again
  std::string launcher = "none";   // torchrun, mpirun or srun: for messages

  bool one_machine() const { return local_size == num_ranks; }
};

// Whose store the ranks meet at, and where: for messages.
std::string store_holder(const Launch& launch);

// The value of an environment variable, nullopt if it is not set.
using EnvironmentReader = std::function<std::optional<std::string>(const std::string& name)>;

// torchrun's variables (RANK, WORLD_SIZE, ...: also set by hand), else Open MPI's, else those of a step of Slurm;
// nullopt for a process that nobody launched. Open MPI and Slurm name no store: it is at MASTER_ADDR and MASTER_PORT if
// these are set, else at loopback or the first host of the node list, at a port made of the job's id. Throws Error,
// which names variable, value and what was expected, where they are incomplete, not numbers or contradict each other.
std::optional<Launch> launch_from_environment(const EnvironmentReader& read);
std::optional<Launch> launch_from_environment();

// The first host of Slurm's form of a list: "gpu[03-07,9],cpu1" gives "gpu03". Throws Error if it has none.
std::string first_host(const std::string& node_list);

}  // namespace switchyard
