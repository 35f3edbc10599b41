#include "tasks/task_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"
#include "tasks/long_texts.h"
#include "tasks/scratch_folder.h"
#include "text/vocabulary_training.h"

namespace switchyard {
namespace {

class TaskSourceTest : public testing::Test {
 protected:
  TaskSourceTest() {
    std::string text;
    for (int n = 0; n < 400; ++n)
      text += "cola sentence number " + std::to_string(n * 7919 % 1000) + " is acceptable.\n";
    folder_.write("text.txt", text);
    train_vocabulary({.text = {folder_.path() / "text.txt"}, .size = 60, .out = folder_.path() / "spiece.model"});
    vocabulary_ = Vocabulary::load(folder_.path() / "spiece.model");
    for (int n = 0; n < 10; ++n) {
      auto& example = examples_.emplace_back();
      example.inputs = "cola sentence: number " + std::to_string(n);
      example.targets = "acceptable " + std::to_string(n);
    }
  }

  std::string target_text(const Batch& batch, int64_t row) const {
    const auto* begin = batch.decoder_target_tokens.data() + row * batch.decoder_length;
    return vocabulary_->decode({begin, static_cast<size_t>(batch.decoder_length)});
  }

  ScratchFolder folder_;
  std::optional<Vocabulary> vocabulary_;
  std::vector<TaskExample> examples_;
};

TEST_F(TaskSourceTest, EveryEpochTakesEachExampleOnceInAnotherOrder) {
  const TaskSource source(examples_, *vocabulary_,
                          {.encoder_length = 64, .decoder_length = 32, .seed = 3, .batch_size = 5});
  EXPECT_EQ(source.examples_per_epoch(), 10);
  std::vector<std::vector<std::string>> epochs(2);
  for (int64_t step = 0; step < 4; ++step)
    for (int64_t row = 0; row < 5; ++row)
      epochs[static_cast<size_t>(step / 2)].push_back(target_text(source.batch(step), row));
  for (const auto& epoch : epochs) EXPECT_EQ(std::set<std::string>(epoch.begin(), epoch.end()).size(), 10u);
  EXPECT_NE(epochs[0], epochs[1]);
}

TEST_F(TaskSourceTest, PartsAreRowsOfTheWholeBatch) {
  const TaskSource source(examples_, *vocabulary_, {.encoder_length = 64, .decoder_length = 32, .batch_size = 4});
  const auto whole = source.batch(7), half = source.rows(7, 2, 2);
  EXPECT_EQ(half.first_example, 2);
  EXPECT_TRUE(std::equal(half.encoder_input_tokens.begin(), half.encoder_input_tokens.end(),
                         whole.encoder_input_tokens.begin() + 2 * 64));
  EXPECT_THROW(source.rows(7, 3, 2), Error);
}

TEST_F(TaskSourceTest, InputsAreCutAndCountedAndKeepTheirEos) {
  examples_[0].place = "dev.tsv:1";
  const TaskSource source(examples_, *vocabulary_, {.encoder_length = 4, .decoder_length = 32, .batch_size = 10});
  EXPECT_EQ(source.cut_inputs().count, 10);
  EXPECT_EQ(source.cut_inputs().first, "dev.tsv:1");
  EXPECT_EQ(source.skipped_examples().count, 0);
  const auto batch = source.batch(0);
  for (size_t row = 0; row < 10; ++row) EXPECT_EQ(batch.encoder_input_tokens[row * 4 + 3], vocabulary_->eos_id());
}

TEST_F(TaskSourceTest, LongInputsAreFoundNamedAndLeftOut) {
  examples_[4].inputs += " acceptable acceptable";
  examples_[4].place = "dev.tsv:5";
  const auto tokens = static_cast<int64_t>(vocabulary_->encode(examples_[4].inputs).size());
  EXPECT_TRUE(find_long_texts(examples_, &TaskExample::inputs, *vocabulary_, tokens).empty());  // one fits exactly
  const auto found = find_long_texts(examples_, &TaskExample::inputs, *vocabulary_, tokens - 1);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].example, 4u);
  EXPECT_EQ(found[0].tokens, tokens);
  const auto message = message_of([&] { refuse_long_inputs(examples_, found, tokens); });
  EXPECT_TRUE(message.starts_with("1 of 10 inputs are longer than " + std::to_string(tokens))) << message;
  EXPECT_NE(message.find("an encoder length of " + std::to_string(tokens + 1)), std::string::npos) << message;
  EXPECT_NE(message.find("dev.tsv:5: an input of"), std::string::npos) << message;
  const auto rows = leave_out(examples_, found, tokens);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].place, "dev.tsv:5");
  ASSERT_EQ(examples_.size(), 9u);
  EXPECT_EQ(examples_[4].targets, "acceptable 5");
  const auto all = find_long_texts(examples_, &TaskExample::inputs, *vocabulary_, 1);
  EXPECT_TRUE(message_of([&] { leave_out(examples_, all, 2); }).starts_with("no example is left"));
}

// In training as in evaluation: a text that is too long by one token is skipped or refused, and the place said.
TEST_F(TaskSourceTest, LongInputsAreSkippedOrRefused) {
  examples_[4].inputs += " acceptable acceptable";
  examples_[4].place = "dev.tsv:5";
  const auto needed = static_cast<int64_t>(vocabulary_->encode(examples_[4].inputs).size()) + 1;
  TaskSourceOptions options{
      .encoder_length = needed - 1, .decoder_length = 32, .batch_size = 2, .long_inputs = LongInputs::kRefuse};
  const auto message = message_of([&] { TaskSource(examples_, *vocabulary_, options); });
  EXPECT_TRUE(message.starts_with("dev.tsv:5: an input of more than")) << message;
  EXPECT_NE(message.find("set encoder_length to " + std::to_string(needed)), std::string::npos) << message;
  options.long_inputs = LongInputs::kSkip;
  const TaskSource source(examples_, *vocabulary_, options);
  EXPECT_EQ(source.skipped_examples().count, 1);
  EXPECT_EQ(source.skipped_examples().first, "dev.tsv:5");
  EXPECT_EQ(source.cut_inputs().count, 0);
  EXPECT_EQ(source.examples_per_epoch(), 9);
  options.encoder_length = needed;
  EXPECT_EQ(TaskSource(examples_, *vocabulary_, options).examples_per_epoch(), 10);
}

TEST_F(TaskSourceTest, TargetsAreNeverCut) {
  examples_[4].targets += " acceptable acceptable acceptable acceptable";
  examples_[4].place = "dev.tsv:5";
  const int64_t needed = static_cast<int64_t>(vocabulary_->encode(examples_[4].targets).size()) + 1;
  const int64_t short_length = static_cast<int64_t>(vocabulary_->encode(examples_[0].targets).size()) + 1;
  TaskSourceOptions options{.encoder_length = 64, .decoder_length = short_length, .batch_size = 2};
  const auto message = message_of([&] { TaskSource(examples_, *vocabulary_, options); });
  EXPECT_TRUE(message.starts_with("dev.tsv:5: a target")) << message;
  EXPECT_NE(message.find("set decoder_length to " + std::to_string(needed)), std::string::npos) << message;
  options.long_targets = LongTargets::kSkip;
  const TaskSource source(examples_, *vocabulary_, options);
  EXPECT_EQ(source.skipped_examples().count, 1);
  EXPECT_EQ(source.skipped_examples().first, "dev.tsv:5");
  EXPECT_EQ(source.examples_per_epoch(), 9);
  options.decoder_length = needed;
  EXPECT_EQ(TaskSource(examples_, *vocabulary_, options).examples_per_epoch(), 10);
}

}  // namespace
}  // namespace switchyard
