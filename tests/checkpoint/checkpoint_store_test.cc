#include "checkpoint/checkpoint_store.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/testing.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig tiny() {
  auto config = preset("t5-tiny");
  config.vocab_size = 128;
  return config;
}

// Stands for a model where only the folder's fate matters.
void write_stub(const fs::path& folder) { write_file_atomically(folder / "config.json", "{}"); }

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

TEST(TrainingState, RoundTripKeepsBitsStepAndJson) {
  ScratchFolder folder;
  const TrainingState training{
      .step = 41,
      .tensors = {{"slot.b", at::tensor({1.0f, 1e-30f})}, {"slot.a", at::tensor({7}, at::kLong)}},
      .state = {{"loader", {{"position", 12345678901234567}}}, {"scale", 1.0 / 3}}};
  write_training_state(folder.path(), training);
  const auto read = read_training_state(folder.path());
  EXPECT_EQ(read.step, 41);
  EXPECT_EQ(read.state, training.state);
  ASSERT_EQ(read.tensors.size(), 2u);
  EXPECT_EQ(read.tensors[0].first, "slot.a");
  EXPECT_TRUE(at::equal(read.tensors[1].second, training.tensors[0].second));
  EXPECT_EQ(read_training_step(folder.path()).step, 41);
}

TEST(TrainingState, TensorsOfSeveralProcessesReadAsOne) {
  ScratchFolder folder;
  write_training_tensors(folder.path(), {{"b[2:4].v", at::ones({2, 3})}}, 0, 2);
  write_training_tensors(folder.path(), {{"a.v", at::ones({5})}, {"b[0:2].v", at::zeros({2, 3})}}, 1, 2);
  write_training_step(folder.path(), 7, Json::object());
  const auto read = read_training_state(folder.path());
  ASSERT_EQ(read.tensors.size(), 3u);
  EXPECT_EQ(read.tensors[0].first, "a.v");
  EXPECT_EQ(read.tensors[2].first, "b[2:4].v");
  EXPECT_TRUE(at::equal(read.tensors[2].second, at::ones({2, 3})));
  std::filesystem::remove(folder / "training/optimizer-00001-of-00002.safetensors");
  EXPECT_THAT([&] { read_training_state(folder.path()); }, ThrowsMessage<Error>(HasSubstr("optimizer-00001-of-00002")));
}

TEST(TrainingState, DamageIsNamed) {
  ScratchFolder folder;
  EXPECT_THAT([&] { read_training_state(folder.path()); }, ThrowsMessage<Error>(HasSubstr("no training state")));
  write_training_state(folder.path(), {.step = 1});
  for (const char* text :
       {"", "{", "[]", R"({"version": 1})", R"({"version": 2, "step": 1, "state": {}})",
        R"({"version": 1, "step": "x", "state": {}})", R"({"version": 1, "step": -1, "state": {}})"}) {
    write_file_atomically(folder / "training/state.json", text);
    EXPECT_THAT([&] { read_training_state(folder.path()); }, ThrowsMessage<Error>(HasSubstr("state.json"))) << text;
  }
}

TEST(CheckpointStore, SavesAModelThatOpens) {
  ScratchFolder folder;
  const auto config = tiny();
  const auto weights = initialize(config, 1);
  const CheckpointStore store(folder / "run");
  EXPECT_EQ(store.newest_complete(), std::nullopt);
  const auto saved = store.save(200, {{"eval_loss", 3.5}}, [&](const fs::path& path) {
    save_model(path, config, weights);
    write_training_state(path, {.step = 200});
  });
  EXPECT_EQ(saved, folder / "run" / "checkpoints" / "step-000200");
  EXPECT_EQ(store.newest_complete(), saved);
  EXPECT_EQ(store.best()->step, 200);
  EXPECT_EQ(read_file(folder / "run/latest"), "step-000200\n");
  expect_equal_weights(config, weights, open_model(saved, at::kFloat).weights);
  EXPECT_EQ(read_training_state(saved).step, 200);
  EXPECT_EQ(resolve_model_folder(folder / "run"), saved);
  EXPECT_EQ(resolve_model_folder(saved), saved);
  EXPECT_THROW(resolve_model_folder(folder.path()), Error);
  EXPECT_THROW(resolve_model_folder(folder / "absent"), Error);
}

TEST(CheckpointStore, ResolvesWhateverNamesAModel) {
  ScratchFolder folder;
  const CheckpointStore store(folder / "run", {.keep_last = 2});
  EXPECT_THAT([&] { resolve_model_folder((folder / "run").string() + "@best"); },
              ThrowsMessage<Error>(HasSubstr("run does not exist")));
  store.save(1, {}, write_stub);
  EXPECT_THAT([&] { resolve_model_folder((folder / "run").string() + "@best"); },
              ThrowsMessage<Error>(HasSubstr("no checkpoint with an evaluation; leave @best out")));
  const auto best = store.save(2, {{"eval_loss", 1.0}}, write_stub),
             newest = store.save(3, {{"eval_loss", 2.0}}, write_stub);
  EXPECT_EQ(resolve_model_folder((folder / "run").string() + "@best"), best);
  EXPECT_EQ(resolve_model_folder(folder / "run"), newest);
  EXPECT_EQ(resolve_vocabulary(folder / "run"), newest);
  EXPECT_EQ(resolve_vocabulary((folder / "run").string() + "@best"), best);
  std::filesystem::create_directory(folder / "model");
  write_file_atomically(folder / "model/spiece.model", "x");
  EXPECT_EQ(resolve_vocabulary(folder / "model"), folder / "model");
  EXPECT_EQ(resolve_vocabulary(folder / "model/spiece.model"), folder / "model/spiece.model");
  EXPECT_EQ(resolve_vocabulary(folder / "absent.model"), folder / "absent.model");
}

TEST(CheckpointStore, KeepsTheLastOnesAndTheBest) {
  ScratchFolder folder;
  const CheckpointStore store(folder.path(), {.keep_last = 2});
  const std::pair<int64_t, std::vector<NamedNumber>> saves[] = {{1, {{"eval_loss", 5.0}}}, {2, {{"eval_loss", 3.0}}},
                                                                {3, {{"eval_loss", 4.0}}}, {4, {}},
                                                                {5, {{"eval_loss", NAN}}}, {6, {{"eval_loss", 3.5}}}};
  for (const auto& [step, numbers] : saves) store.save(step, numbers, write_stub);
  EXPECT_THAT(store.steps(), ElementsAre(2, 5, 6));
  EXPECT_EQ(store.best()->step, 2);
  store.save(1000000, {{"eval_loss", 2.0}}, write_stub);
  EXPECT_THAT(store.steps(), ElementsAre(6, 1000000));
  EXPECT_EQ(store.newest_complete()->filename(), "step-1000000");

  const CheckpointStore plain(folder / "plain", {.keep_last = 1, .keep_best = false});
  plain.save(1, {{"eval_loss", 1.0}}, write_stub);
  plain.save(2, {{"eval_loss", 2.0}}, write_stub);
  EXPECT_THAT(plain.steps(), ElementsAre(2));
}

TEST(CheckpointStore, TheBestIsByTheMetricAndDirectionAsked) {
  ScratchFolder folder;
  const CheckpointStore store(folder.path(), {.keep_last = 1, .best_metric = "rouge_l", .higher_is_better = true});
  EXPECT_TRUE(store.is_new_best({{"rouge_l", 1.0}}));
  store.save(1, {{"eval_loss", 1.0}, {"rouge_l", 20.0}}, write_stub);
  store.save(2, {{"eval_loss", 3.0}, {"rouge_l", 30.0}}, write_stub);
  store.save(3, {{"eval_loss", 2.0}, {"rouge_l", 30.0}}, write_stub);
  store.save(4, {{"eval_loss", 0.5}}, write_stub);
  EXPECT_EQ(store.best()->step, 2);
  EXPECT_THAT(store.steps(), ElementsAre(2, 4));
  EXPECT_EQ(read_file(folder / "best"), "step-000002\n");
  EXPECT_TRUE(store.is_new_best({{"rouge_l", 30.5}}));
  EXPECT_FALSE(store.is_new_best({{"rouge_l", 30.0}}));
  EXPECT_FALSE(store.is_new_best({{"rouge_l", NAN}}));
  EXPECT_FALSE(store.is_new_best({{"eval_loss", 0.1}}));
  EXPECT_EQ(resolve_model_folder(folder.path().string() + "@best").filename(), "step-000002");
}

TEST(CheckpointStore, FindsTheNewestWhateverLatestSays) {
  ScratchFolder folder;
  const CheckpointStore store(folder.path(), {.keep_last = 10});
  for (const int64_t step : {10, 20, 30}) store.save(step, {}, write_stub);
  fs::remove(folder / "latest");
  EXPECT_EQ(store.newest_complete()->filename(), "step-000030");
  write_file_atomically(folder / "latest", "step-000010\n");
  EXPECT_EQ(store.newest_complete()->filename(), "step-000030");
  // Leftovers of a killed save, foreign folders, and one that somebody emptied.
  fs::create_directories(folder / "checkpoints/.tmp-step-000040/training");
  write_stub(folder / "checkpoints/.tmp-step-000040");
  fs::create_directories(folder / "checkpoints/step-000050");
  fs::create_directories(folder / "checkpoints/step-1e9");
  write_stub(folder / "checkpoints/step-1e9");
  EXPECT_EQ(store.newest_complete()->filename(), "step-000030");
  store.save(31, {}, write_stub);
  EXPECT_FALSE(names_in(folder / "checkpoints").contains(".tmp-step-000040"));
}

TEST(CheckpointStore, ReplacesTheSameStep) {
  ScratchFolder folder;
  const CheckpointStore store(folder.path());
  store.save(10, {{"eval_loss", 4.0}}, write_stub);
  store.save(10, {{"eval_loss", 2.0}},
             [](const fs::path& path) { write_file_atomically(path / "config.json", "{\"second\": 1}"); });
  EXPECT_EQ(read_file(*store.newest_complete() / "config.json"), "{\"second\": 1}");
  EXPECT_THAT(names_in(folder / "checkpoints"), ElementsAre("step-000010"));
}

TEST(CheckpointStore, AFailedSaveLeavesTheOldOnes) {
  ScratchFolder folder;
  const CheckpointStore store(folder.path(), {.keep_last = 1});
  store.save(10, {}, write_stub);
  const auto fail = [](const fs::path& path) {
    write_stub(path);
    throw Error("no space");
  };
  EXPECT_THAT([&] { store.save(20, {}, fail); },
              ThrowsMessage<Error>(
                  AllOf(HasSubstr("step 20"), HasSubstr("no space"), HasSubstr("earlier checkpoints are untouched"))));
  EXPECT_THAT([&] { store.save(20, {}, [](const fs::path&) {}); }, ThrowsMessage<Error>(HasSubstr("no config.json")));
  EXPECT_THAT(names_in(folder / "checkpoints"), ElementsAre("step-000010"));
  EXPECT_EQ(read_file(folder / "latest"), "step-000010\n");
}

// A limit on file size stands for a full disk: write(2) fails in the middle of the weights. In a process of its own,
// since the limit holds for good.
TEST(CheckpointStore, AFullDiskIsAMessageAndLeavesTheOldOnes) {
  ScratchFolder folder;
  const auto config = tiny();
  const auto weights = initialize(config, 1);
  const auto save = [&](int64_t step) {
    CheckpointStore(folder.path()).save(step, {}, [&](const fs::path& path) { save_model(path, config, weights); });
  };
  save(10);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save(20);
      ::_exit(1);
    } catch (const Error& error) {
      const std::string text = error.what();
      ::_exit(text.find("cannot write") != std::string::npos && text.find("File too large") != std::string::npos ? 0
                                                                                                                 : 2);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_THAT(names_in(folder / "checkpoints"), ElementsAre("step-000010"));
  expect_equal_weights(config, weights, open_model(folder / "checkpoints/step-000010", at::kFloat).weights);
}

// Killed at random instants of saving step after step: what is found is always complete, and never older than what a
// finished save had promised.
TEST(CheckpointStore, AKillAtAnyInstantLeavesACompleteNewest) {
  ScratchFolder folder;
  const auto config = tiny();
  const auto weights = initialize(config, 1);
  const CheckpointStore store(folder.path(), {.keep_last = 1});
  const auto save = [&](int64_t step) {
    store.save(step, {}, [&](const fs::path& path) {
      save_model(path, config, weights, {.max_shard_bytes = 200'000});
      write_training_state(path, {.step = step, .tensors = {{"slot", weights.shared}}});
    });
  };
  save(1);
  int64_t newest = 1;
  for (int round = 0; round < 12; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      for (int64_t step = newest + 1;; ++step) {
        save(step);
        if (::write(pipe_ends[1], &step, sizeof(step)) != sizeof(step)) ::_exit(1);
      }
    }
    ::close(pipe_ends[1]);
    ::usleep(static_cast<useconds_t>(5'000 + 2'900 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    int64_t promised = newest;
    while (::read(pipe_ends[0], &promised, sizeof(promised)) == sizeof(promised)) newest = promised;
    ::close(pipe_ends[0]);
    const auto found = store.newest_complete();
    ASSERT_TRUE(found.has_value());
    const auto training = read_training_state(*found);
    EXPECT_GE(training.step, newest);
    expect_equal_weights(config, weights, open_model(*found, at::kFloat).weights);
    newest = training.step;
  }
  save(newest + 1);
  EXPECT_THAT(names_in(folder / "checkpoints"), testing::SizeIs(1));
}

}  // namespace
}  // namespace switchyard
