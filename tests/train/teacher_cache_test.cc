#include "train/teacher_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/softmax.h>
#include <gmock/gmock.h>

#include <fstream>

#include "base/files.h"
#include "testing/errors.h"
#include "testing/scratch_folder.h"
#include "train/model_teacher.h"
#include "train/step.h"
#include "train/teaching.h"

namespace switchyard {
namespace {

using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

TeacherCacheKey key_for(int64_t top_k) {
  TeacherCacheKey key{.top_k = top_k, .shape = {8, 12, 6}, .vocab_size = dense_student().vocab_size};
  key.about["data"] = {{"encoder_length", 12}};
  key.about["teacher"] = {{"model.safetensors", 17}};
  return key;
}

// Two updates of a student on the same batch.
StepResult second_update(const Teacher& teacher, int64_t micro_batch_size) {
  const auto config = dense_student();
  Learner learner(config, initialize(config, 4), {.learning_rate = 0.1, .schedule = "constant"},
                  {.dtype = at::kFloat, .seed = 3, .micro_batch_size = micro_batch_size, .teacher = &teacher});
  learner.update(padded_batch(), 1);
  return learner.update(padded_batch(), 2);
}

CachedTeacher cached(const TeacherCacheKey& key, const ModelTeacher& teacher, const std::filesystem::path& folder) {
  TeacherCache cache(folder, key);
  cache.make(0, 2, [&](int64_t step) { return top_answers(teacher, padded_batch(), step + 1, 4, key, at::kCPU); });
  return {TeacherCache(folder, key), key.vocab_size, 0.5, 1.5};
}

TEST(CachedTeacher, WithEveryIdIsTheLiveTeacher) {
  const test::ScratchFolder scratch;
  const ModelTeacher live(model_of(sparse_teacher(), 2, at::kFloat), 0.5, 1.5);
  const auto key = key_for(dense_student().vocab_size);
  const auto kept = cached(key, live, scratch.path() / "all");
  const auto expected = second_update(live, 0);
  for (const int64_t micro_batch_size : {0, 2, 3}) {
    const auto result = second_update(kept, micro_batch_size);
    EXPECT_NEAR(result.loss, expected.loss, 2e-4 * expected.loss) << micro_batch_size;
    EXPECT_NEAR(*result.soft_cross_entropy, *expected.soft_cross_entropy, 2e-4 * *expected.soft_cross_entropy);
    EXPECT_NEAR(result.gradient_norm, expected.gradient_norm, 1e-3 * expected.gradient_norm);
  }
}

TEST(CachedTeacher, WithFewIdsIsNearIt) {
  const test::ScratchFolder scratch;
  const ModelTeacher live(model_of(sparse_teacher(), 2, at::kFloat), 0.5, 1.5);
  const auto expected = *second_update(live, 0).soft_cross_entropy;
  double before = 1.0;
  for (const int64_t top_k : {1, 8, 48}) {
    const auto kept = cached(key_for(top_k), live, scratch.path() / std::to_string(top_k));
    const double distance = std::abs(*second_update(kept, 0).soft_cross_entropy - expected);
    EXPECT_LT(distance, before) << top_k;
    before = distance + 1e-6;
  }
  EXPECT_LT(before, 0.02 * expected);
}

TEST(SpreadProbabilities, KeepTheMass) {
  const auto whole = at::softmax(at::rand({5, 20}) * 4.0, 1);
  const auto [largest, ids] = whole.topk(4, 1);
  const auto spread = spread_probabilities(ids, largest, 20);
  EXPECT_TRUE(at::allclose(spread.sum(1), at::ones({5})));
  EXPECT_TRUE(at::allclose(spread.gather(1, ids), largest));
  const auto others = spread.clone().scatter_(1, ids, 1.0);
  EXPECT_TRUE(at::allclose(std::get<0>(others.min(1)), (1.0 - largest.sum(1)) / 16.0, 1e-4, 1e-6));
  const auto [all, all_ids] = whole.topk(20, 1);
  EXPECT_TRUE(at::allclose(spread_probabilities(all_ids, all * 0.999, 20), whole)) << "rounding is made good";
  EXPECT_TRUE(at::allclose(spread_probabilities(ids, largest * 4.0, 20).sum(1), at::ones({5})));
}

// 8 * 6 labels of 2^18 bytes each: one step a file.
TeacherCacheKey wide_key() {
  auto key = key_for(1 << 16);
  key.vocab_size = 1 << 17;
  return key;
}

TeacherCache::Answers small_answers(int64_t step) {
  return {at::ones({8}, at::kLong), at::ones({8, 2}, at::kLong) * step, at::ones({8, 2}) * 0.25};
}

TEST(TeacherCache, GoesOnBehindWholeFiles) {
  const test::ScratchFolder scratch;
  const TeacherCache cache(scratch.path() / "cache", wide_key());
  ASSERT_EQ(cache.steps_a_file(), 5);
  std::vector<int64_t> asked;
  const auto answer_until = [&](int64_t last) {
    return [&asked, last](int64_t step) {
      if (step > last) throw Error("stopped");
      asked.push_back(step);
      return small_answers(step);
    };
  };
  EXPECT_EQ(error_of([&] { cache.make(0, 12, answer_until(7)); }), "stopped");
  EXPECT_TRUE(cache.has(0, 5));
  EXPECT_FALSE(cache.has(0, 6));
  asked.clear();
  TeacherCache(scratch.path() / "cache", wide_key()).make(0, 12, answer_until(100));
  EXPECT_EQ(asked.front(), 5);
  EXPECT_EQ(asked.back(), 14) << "files are whole";
  EXPECT_EQ(cache.read(11).ids[0][0].item<int64_t>(), 11);
  asked.clear();
  cache.make(12, 15, answer_until(100));
  EXPECT_TRUE(asked.empty());
}

TEST(TeacherCache, RefusesWhatIsNotItsOwn) {
  const test::ScratchFolder scratch;
  const auto folder = scratch.path() / "cache";
  TeacherCache(folder, wide_key()).make(0, 10, small_answers);
  auto other = wide_key();
  other.about["teacher"]["model.safetensors"] = 18;
  EXPECT_THAT(error_of([&] { TeacherCache(folder, other); }),
              AllOf(HasSubstr("teacher.model.safetensors: 17 -> 18"), HasSubstr("distill.cache")));
  other = wide_key();
  other.about["data"]["encoder_length"] = 64;
  EXPECT_THAT(error_of([&] { TeacherCache(folder, other); }), HasSubstr("data.encoder_length: 12 -> 64"));
  EXPECT_THAT(error_of([&] { TeacherCache(folder, key_for(1 << 17)); }), HasSubstr("expected 1 to"));

  const TeacherCache cache(folder, wide_key());
  auto bytes = read_file(cache.file_of(7));
  bytes[bytes.size() - 3] ^= 1;
  write_file_atomically(cache.file_of(7), bytes);
  EXPECT_THAT(error_of([&] { cache.read(7); }), AllOf(HasSubstr("steps-00000005"), HasSubstr("damaged")));
  EXPECT_EQ(cache.read(2).ids[0][0].item<int64_t>(), 2);
  std::filesystem::copy_file(cache.file_of(0), cache.file_of(5), std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(error_of([&] { cache.read(7); }), HasSubstr("steps-00000005"));
}

TEST(CachedTeacher, RefusesOtherLabels) {
  const test::ScratchFolder scratch;
  const ModelTeacher live(model_of(sparse_teacher(), 2, at::kFloat), 0.5, 1.5);
  const auto kept = cached(key_for(8), live, scratch.path() / "cache");
  auto batch = padded_batch();
  batch.decoder_target_tokens[5] = 0;
  EXPECT_THAT(error_of([&] { kept.soft_targets(to_tensors(batch, 0, 8), 1, 0, {}); }), HasSubstr("other labels"));
}

}  // namespace
}  // namespace switchyard
