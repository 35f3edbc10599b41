#include "testing/ranks.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/error.h"

extern char** environ;

namespace switchyard::test {
namespace {

constexpr const char* kFolder = "SWITCHYARD_TEST_RANK_FOLDER";
constexpr double kPatience = 60.0;

std::string current_test() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  return join(info->test_suite_name(), ".", info->name());
}

void sleep_a_little() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

std::filesystem::path rank_folder(const std::filesystem::path& folder, int64_t rank) {
  return folder / std::to_string(rank);
}

}  // namespace

TakenPort::TakenPort() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  SY_CHECK(socket_ >= 0 && ::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
               ::listen(socket_, 1) == 0,
           "no free port");
}

TakenPort::~TakenPort() { ::close(socket_); }

int TakenPort::port() const {
  sockaddr_in address{};
  socklen_t length = sizeof(address);
  ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

bool is_rank() { return std::getenv(kFolder) != nullptr; }

Launch rank_launch() { return launch_from_environment().value(); }

void tell(const std::string& name) {
  std::ofstream(rank_folder(std::getenv(kFolder), rank_launch().rank) / name) << name;
}

Ranks::Ranks(int64_t num_ranks) : port_(TakenPort().port()), num_ranks_(num_ranks), started_at_(steady_seconds()) {
  pids_.resize(num_ranks);
  for (int64_t rank = 0; rank < num_ranks; ++rank) start(rank);
}

Ranks::~Ranks() {
  for (const auto pid : pids_) {
    if (pid <= 0) continue;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

void Ranks::start(int64_t rank) {
  const auto folder = rank_folder(folder_.path(), rank);
  std::filesystem::create_directories(folder);
  std::vector<std::string> variables = {join(kFolder, "=", folder_.path().string()),
                                        join("RANK=", rank),
                                        join("LOCAL_RANK=", rank),
                                        join("WORLD_SIZE=", num_ranks_),
                                        join("LOCAL_WORLD_SIZE=", num_ranks_),
                                        "MASTER_ADDR=127.0.0.1",
                                        join("MASTER_PORT=", port_),
                                        "OMP_NUM_THREADS=1"};
  std::vector<char*> environment;
  for (auto& variable : variables) environment.push_back(variable.data());
  for (char** variable = environ; *variable != nullptr; ++variable)
    if (std::string_view(*variable).substr(0, 16) != "OMP_NUM_THREADS=") environment.push_back(*variable);
  environment.push_back(nullptr);
  std::string filter = "--gtest_filter=" + current_test(), program = "/proc/self/exe";
  char* arguments[] = {program.data(), filter.data(), nullptr};
  const auto output = (folder / "output").string();

  const auto pid = ::fork();
  SY_CHECK(pid >= 0, "cannot start a process");
  if (pid == 0) {
    const int file = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ::dup2(file, 1);
    ::dup2(file, 2);
    ::execve(arguments[0], arguments, environment.data());
    ::_exit(127);
  }
  pids_[rank] = pid;
}

void Ranks::signal(int64_t rank, int number) const { ASSERT_EQ(::kill(pids_[rank], number), 0); }

void Ranks::wait_for(int64_t rank, const std::string& name) const {
  const auto until = steady_seconds() + kPatience;
  while (!std::filesystem::exists(rank_folder(folder_.path(), rank) / name)) {
    ASSERT_LT(steady_seconds(), until) << "rank " << rank << " has not told " << name;
    sleep_a_little();
  }
}

RankEnd Ranks::end(int64_t rank, double seconds) {
  RankEnd end;
  int status = 0;
  const auto until = steady_seconds() + seconds;
  while (!end.in_time && steady_seconds() < until) {
    end.in_time = ::waitpid(pids_[rank], &status, WNOHANG) == pids_[rank];
    if (!end.in_time) sleep_a_little();
  }
  end.seconds = steady_seconds() - started_at_;
  if (end.in_time) {
    pids_[rank] = 0;
    end.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::ostringstream text;
  text << std::ifstream(rank_folder(folder_.path(), rank) / "output").rdbuf();
  end.output = text.str();
  return end;
}

void across_ranks(int64_t num_ranks, const std::function<void(const Launch&)>& body) {
  if (is_rank()) return body(rank_launch());
  Ranks ranks(num_ranks);
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const auto end = ranks.end(rank, kPatience);
    EXPECT_TRUE(end.in_time && end.code == 0)
        << "rank " << rank << " of " << num_ranks << ", code " << end.code << ":\n"
        << end.output;
  }
}

}  // namespace switchyard::test
