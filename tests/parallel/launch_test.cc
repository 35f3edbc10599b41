#include "parallel/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace switchyard {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<Launch> launch_of(const Variables& variables) {
  return launch_from_environment([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Variables with(Variables variables, const Variables& others) {
  for (const auto& [name, value] : others) variables[name] = value;
  return variables;
}

std::string error_of(const Variables& variables) {
  try {
    launch_of(variables);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

const Variables kTorchrun = {{"RANK", "5"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "node1"},
                             {"MASTER_PORT", "29400"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "4"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                            {"PMIX_NAMESPACE", "prterun-1@1"}};
const Variables kSlurm = {
    {"SLURM_PROCID", "5"},  {"SLURM_NTASKS", "8"},  {"SLURM_LOCALID", "1"},         {"SLURM_NNODES", "2"},
    {"SLURM_STEP_ID", "0"}, {"SLURM_JOB_ID", "77"}, {"SLURM_NTASKS_PER_NODE", "4"}, {"SLURM_NODELIST", "gpu[03-07,9]"}};

TEST(Launch, WithoutALauncherThereIsNone) {
  EXPECT_FALSE(launch_of({}));
  EXPECT_FALSE(launch_of({{"MASTER_ADDR", "node1"}, {"RANK", ""}}));
  // A shell inside an allocation of Slurm: nobody has launched ranks.
  EXPECT_FALSE(launch_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "77"}}));
}

TEST(Launch, ReadsTorchrun) {
  const auto launch = launch_of(kTorchrun).value();
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.num_ranks, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_size, 4);
  EXPECT_EQ(launch.store_host, "node1");
  EXPECT_EQ(launch.store_port, 29400);
  EXPECT_TRUE(launch.agent_hosts_store);
  EXPECT_EQ(launch.restart, 2);
  EXPECT_EQ(launch.launcher, "torchrun");
  EXPECT_FALSE(launch.one_machine());
}

TEST(Launch, OneRankNeedsNoStore) {
  EXPECT_EQ(launch_of({{"WORLD_SIZE", "1"}}).value().num_ranks, 1);
  EXPECT_EQ(launch_of({{"WORLD_SIZE", "1"}, {"RANK", "0"}}).value().num_ranks, 1);
}

TEST(Launch, ReadsOpenMpi) {
  const auto launch = launch_of(kOpenMpi).value();
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.num_ranks, 4);
  EXPECT_TRUE(launch.one_machine());
  EXPECT_EQ(launch.store_host, "127.0.0.1");
  EXPECT_EQ(launch.launcher, "mpirun");
  EXPECT_FALSE(launch.agent_hosts_store);
  const auto port = launch.store_port;
  EXPECT_TRUE(20000 <= port && port < 30000) << port;
  EXPECT_EQ(launch_of(with(kOpenMpi, {{"OMPI_COMM_WORLD_RANK", "2"}})).value().store_port, port);
  EXPECT_NE(launch_of(with(kOpenMpi, {{"PMIX_NAMESPACE", "prterun-2@1"}})).value().store_port, port);
  EXPECT_EQ(launch_of(with(kOpenMpi, {{"MASTER_PORT", "1234"}, {"MASTER_ADDR", "n"}})).value().store_port, 1234);
}

TEST(Launch, ReadsSlurm) {
  const auto launch = launch_of(kSlurm).value();
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.num_ranks, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_size, 4);
  EXPECT_EQ(launch.store_host, "gpu03");
  EXPECT_EQ(launch.launcher, "srun");
  EXPECT_EQ(launch_of(with(kSlurm, {{"MASTER_ADDR", "head"}})).value().store_host, "head");
  // Two steps of one job may run at the same time.
  EXPECT_NE(launch_of(with(kSlurm, {{"SLURM_STEP_ID", "1"}})).value().store_port, launch.store_port);
  const auto one = launch_of(with(kSlurm, {{"SLURM_NNODES", "1"}, {"SLURM_LOCALID", "5"}})).value();
  EXPECT_TRUE(one.one_machine());
  EXPECT_EQ(one.store_host, "127.0.0.1");
}

TEST(Launch, ExpandsTheFirstNode) {
  EXPECT_EQ(first_host("gpu[03-07,9]"), "gpu03");
  EXPECT_EQ(first_host("gpu[3,9],cpu1"), "gpu3");
  EXPECT_EQ(first_host("cpu1,gpu[3,9]"), "cpu1");
  EXPECT_EQ(first_host("rack[1-2]-n,other"), "rack1-n");
  EXPECT_EQ(first_host("alone"), "alone");
  for (const auto* list : {"", ",a", "gpu[", "gpu[]", "gpu[3"}) EXPECT_THROW(first_host(list), Error) << list;
}

TEST(Launch, NamesTheVariableThatIsWrong) {
  using testing::AllOf;
  using testing::HasSubstr;
  const std::pair<Variables, std::vector<const char*>> cases[] = {
      {with(kTorchrun, {{"RANK", "8"}}), {"RANK = \"8\"", "0 to 7"}},
      {with(kTorchrun, {{"RANK", "x"}}), {"RANK = \"x\""}},
      {with(kTorchrun, {{"RANK", "1 "}}), {"RANK = \"1 \""}},
      {with(kTorchrun, {{"WORLD_SIZE", "0"}}), {"WORLD_SIZE = \"0\"", "from 1"}},
      {with(kTorchrun, {{"WORLD_SIZE", "99999999999999999999"}}), {"WORLD_SIZE"}},
      {with(kTorchrun, {{"WORLD_SIZE", ""}}), {"WORLD_SIZE is not set", "RANK is"}},
      {with(kTorchrun, {{"RANK", ""}}), {"RANK is not set", "WORLD_SIZE is"}},
      {with(kTorchrun, {{"LOCAL_RANK", "4"}}), {"LOCAL_RANK = 4", "LOCAL_WORLD_SIZE = 4"}},
      {with(kTorchrun, {{"LOCAL_WORLD_SIZE", "9"}}), {"LOCAL_WORLD_SIZE = \"9\"", "1 to 8"}},
      {with(kTorchrun, {{"MASTER_ADDR", ""}}), {"MASTER_ADDR is not set"}},
      {with(kTorchrun, {{"MASTER_PORT", ""}}), {"MASTER_PORT is not set"}},
      {with(kTorchrun, {{"MASTER_PORT", "65536"}}), {"MASTER_PORT = \"65536\"", "65535"}},
      {with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "1"}}),
       {"TORCHELASTIC_USE_AGENT_STORE = \"1\"", "True or False"}},
      {with(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}), {"MASTER_ADDR is not set", "mpirun"}},
      {with(kOpenMpi, {{"OMPI_COMM_WORLD_SIZE", ""}}), {"OMPI_COMM_WORLD_SIZE is not set"}},
      {with(kSlurm, {{"SLURM_NODELIST", ""}}), {"SLURM_NODELIST is not set"}},
      {with(kSlurm, {{"SLURM_LOCALID", "4"}}), {"SLURM_LOCALID = 4"}},
  };
  for (const auto& [variables, words] : cases)
    for (const auto* word : words) EXPECT_THAT(error_of(variables), HasSubstr(word));
}

}  // namespace
}  // namespace switchyard
