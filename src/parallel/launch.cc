#include "parallel/launch.h"

#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "parallel/texts.h"

namespace switchyard {
namespace {

constexpr int64_t kMostRanks = 1 << 20;

class Variables {
 public:
  explicit Variables(const EnvironmentReader& read) : read_(read) {}

  std::optional<std::string> text(const std::string& name) const {
    auto value = read_(name);
    return value && !value->empty() ? value : std::nullopt;
  }
  bool has(const std::string& name) const { return text(name).has_value(); }

  // Whole, `low` to `high`; nullopt if it is not set.
  std::optional<int64_t> number(const std::string& name, int64_t low, int64_t high) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    int64_t number = 0;
    const auto* end = value->data() + value->size();
    const auto [rest, error] = std::from_chars(value->data(), end, number);
    SY_CHECK(error == std::errc{} && rest == end && low <= number && number <= high, "environment variable ", name,
             " = \"", *value, "\": expected a whole number from ", low, " to ", high);
    return number;
  }

  // The same, of a variable that has to be there because `because` is set.
  int64_t number_with(const std::string& because, const std::string& name, int64_t low, int64_t high) const {
    const auto value = number(name, low, high);
    SY_CHECK(value, "environment variable ", name, " is not set, but ", because, " is: expected a whole number from ",
             low, " to ", high, "; start the program through its launcher, or unset ", because);
    return *value;
  }

 private:
  const EnvironmentReader& read_;
};

// Rank and size of the run and of this machine's part of it.
struct Names {
  std::string rank, size, local_rank, local_size;
};

Launch read_ranks(const Variables& variables, const Names& names, const std::string& launcher) {
  Launch launch{.launcher = launcher};
  launch.num_ranks = variables.number_with(names.rank, names.size, 1, kMostRanks);
  launch.rank = variables.number_with(names.size, names.rank, 0, launch.num_ranks - 1);
  launch.local_rank =
      variables.number(names.local_rank, 0, launch.num_ranks - 1).value_or(launch.num_ranks == 1 ? 0 : launch.rank);
  // Without the number on this machine, all ranks are taken to be on it.
  launch.local_size = variables.number(names.local_size, 1, launch.num_ranks).value_or(launch.num_ranks);
  SY_CHECK(launch.local_rank < launch.local_size, "environment variable ", names.local_rank, " = ", launch.local_rank,
           ": expected less than ", names.local_size, " = ", launch.local_size);
  return launch;
}

// Below the ports that systems choose for outgoing connections.
int port_of_job(const std::string& job) { return static_cast<int>(20000 + checksum(job) % 10000); }

void find_store(const Variables& variables, Launch& launch, const std::string& default_host, const std::string& job) {
  launch.store_host = variables.text("MASTER_ADDR").value_or(default_host);
  SY_CHECK(!launch.store_host.empty(), "environment variable MASTER_ADDR is not set: ", launch.launcher,
           " started ranks on several machines; expected the name or address of rank 0's machine");
  launch.store_port = static_cast<int>(variables.number("MASTER_PORT", 1, 65535).value_or(port_of_job(job)));
}

Launch of_torchrun(const Variables& variables) {
  auto launch = read_ranks(variables, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}, "torchrun");
  launch.restart = variables.number("TORCHELASTIC_RESTART_COUNT", 0, INT32_MAX).value_or(0);
  const auto agent = variables.text("TORCHELASTIC_USE_AGENT_STORE").value_or("False");
  SY_CHECK(agent == "True" || agent == "False", "environment variable TORCHELASTIC_USE_AGENT_STORE = \"", agent,
           "\": expected True or False");
  launch.agent_hosts_store = agent == "True";
  if (launch.num_ranks == 1 && !variables.has("MASTER_PORT")) return launch;
  SY_CHECK(launch.num_ranks == 1 || variables.has("MASTER_ADDR"),
           "environment variable MASTER_ADDR is not set, but WORLD_SIZE = ", launch.num_ranks,
           ": expected the name or address of rank 0's machine");
  launch.store_host = variables.text("MASTER_ADDR").value_or(launch.store_host);
  launch.store_port = static_cast<int>(variables.number_with("WORLD_SIZE", "MASTER_PORT", 1, 65535));
  return launch;
}

Launch of_open_mpi(const Variables& variables) {
  auto launch = read_ranks(
      variables,
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
      "mpirun");
  std::string job;
  for (const auto* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"})
    if (job.empty()) job = variables.text(name).value_or("");
  find_store(variables, launch, launch.one_machine() ? "127.0.0.1" : "", job);
  return launch;
}

Launch of_slurm(const Variables& variables) {
  auto launch = read_ranks(variables, {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""}, "srun");
  // "4(x2),3": tasks on each node in turn. Where it is a plain number or one node's, that is this machine's.
  const auto nodes = variables.number("SLURM_NNODES", 1, kMostRanks).value_or(1);
  if (nodes > 1) {
    launch.local_size =
        variables.number("SLURM_NTASKS_PER_NODE", 1, launch.num_ranks).value_or((launch.num_ranks + nodes - 1) / nodes);
    SY_CHECK(launch.local_rank < launch.local_size, "environment variable SLURM_LOCALID = ", launch.local_rank,
             ": expected less than ", launch.local_size, " tasks on a node; set --ntasks-per-node");
  }
  launch.restart = variables.number("SLURM_RESTART_COUNT", 0, INT32_MAX).value_or(0);
  std::string host = "127.0.0.1";
  if (nodes > 1) {
    auto list = variables.text("SLURM_STEP_NODELIST");
    if (!list) list = variables.text("SLURM_NODELIST");
    SY_CHECK(list || variables.has("MASTER_ADDR"),
             "environment variable SLURM_NODELIST is not set, but SLURM_NNODES = ", nodes,
             ": expected a list of nodes, or MASTER_ADDR");
    if (list) host = first_host(*list);
  }
  const auto job = variables.text("SLURM_JOB_ID").value_or("") + "." + variables.text("SLURM_STEP_ID").value_or("");
  find_store(variables, launch, host, job);
  return launch;
}

}  // namespace

std::string first_host(const std::string& node_list) {
  const auto open = node_list.find_first_of("[,");
  if (open == std::string::npos || node_list[open] == ',') {
    auto host = node_list.substr(0, open);
    SY_CHECK(!host.empty(), "list of nodes \"", node_list, "\": expected a name first, as in node[03-07,9]");
    return host;
  }
  const auto close = node_list.find(']', open);
  const auto end = node_list.find_first_of("-,]", open + 1);
  SY_CHECK(close != std::string::npos && end != open + 1, "list of nodes \"", node_list,
           "\": expected numbers in brackets, as in node[03-07,9]");
  // What follows the bracket up to the next comma belongs to each name.
  const auto rest = node_list.substr(close + 1, node_list.find(',', close) - close - 1);
  return node_list.substr(0, open) + node_list.substr(open + 1, end - open - 1) + rest;
}

std::string store_holder(const Launch& launch) {
  return join(launch.agent_hosts_store ? "torchrun's agent" : "rank 0", " (", launch.store_host, ":", launch.store_port,
              ")");
}

std::optional<Launch> launch_from_environment(const EnvironmentReader& read) {
  const Variables variables(read);
  if (variables.has("RANK") || variables.has("WORLD_SIZE")) {
    if (!variables.has("RANK") && variables.number("WORLD_SIZE", 1, kMostRanks) == 1) return Launch{};
    return of_torchrun(variables);
  }
  if (variables.has("OMPI_COMM_WORLD_RANK") || variables.has("OMPI_COMM_WORLD_SIZE")) return of_open_mpi(variables);
  // An interactive allocation sets the numbers of the whole job; only a step of it (srun) has launched this process.
  if (variables.has("SLURM_STEP_ID") && variables.has("SLURM_PROCID")) return of_slurm(variables);
  return std::nullopt;
}

std::optional<Launch> launch_from_environment() {
  return launch_from_environment([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

}  // namespace switchyard
