#include "train/model_teacher.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include "eval/text_loss.h"
#include "train/step.h"
#include "train/teaching.h"

namespace switchyard {
namespace {

at::Tensor logits_of(const InferenceModel& model, const LossInput& input) {
  const auto encoder = encode(model.config, model.weights, input.encoder, {});
  const auto decoder = decode(model.config, model.weights, input.decoder, encoder.hidden, input.encoder, {});
  return output_logits(model.weights, decoder.hidden).reshape({-1, model.config.vocab_size});
}

double total_loss(const ModelConfig& config, const ModelWeights& weights, const LossInput& input,
                  const ModelTeacher& teacher) {
  const auto soft = teacher.soft_targets(input, 1, 0, {});
  return compute_loss(config, cast_weights(config, weights, at::kDouble), input, {},
                      {.z_loss = 1e-2, .soft_targets = &soft})
      .total.item<double>();
}

TEST(ModelTeacher, TheLossIsThePlainComposition) {
  const auto config = dense_student();
  const auto input = to_tensors(padded_batch(), 0, 8);
  const ModelTeacher teacher(model_of(sparse_teacher(), 2, at::kDouble), 0.25, 2.0);
  const auto student = logits_of(model_of(config, 1, at::kDouble), input);
  const auto taught = at::softmax(logits_of(model_of(sparse_teacher(), 2, at::kDouble), input) / 2.0, 1);
  const auto labels = input.labels.reshape({-1});
  const auto kept = labels.ge(0).to(at::kDouble);
  const auto chosen = at::log_softmax(student, 1).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
  const auto soft = (at::log_softmax(student / 2.0, 1) * taught).sum(1);
  const auto log_z = at::logsumexp(student, 1);
  const auto terms = chosen * -0.75 - soft * (0.25 * 4.0) + log_z * log_z * 1e-2;
  EXPECT_NEAR(total_loss(config, initialize(config, 1), input, teacher),
              ((terms * kept).sum() / kept.sum()).item<double>(), 1e-9);
}

TEST(ModelTeacher, GradientsMatchDifferences) {
  const auto config = dense_student();
  const auto input = to_tensors(padded_batch(), 0, 8);
  const ModelTeacher teacher(model_of(sparse_teacher(), 2, at::kDouble), 0.6, 1.5);
  auto weights = initialize(config, 1);
  for (const auto& parameter : list_parameters(config, weights)) {
    *parameter.tensor = parameter.tensor->to(at::kDouble);
    parameter.tensor->requires_grad_();
  }
  const auto soft = teacher.soft_targets(input, 1, 0, {});
  compute_loss(config, cast_weights(config, weights, at::kDouble), input, {}, {.z_loss = 1e-2, .soft_targets = &soft})
      .total.backward();
  for (const auto& [spec, tensor] : list_parameters(config, weights)) {
    auto value = tensor->detach().view({-1})[3];
    constexpr double kStep = 1e-5;
    value += kStep;
    const double above = total_loss(config, weights, input, teacher);
    value -= 2 * kStep;
    const double below = total_loss(config, weights, input, teacher);
    value += kStep;
    EXPECT_NEAR(tensor->grad().view({-1})[3].item<double>(), (above - below) / (2 * kStep), 1e-7) << spec.name;
  }
}

struct Outcome {
  StepResult result;
  ModelWeights weights;
};

Outcome first_step(const Teacher& teacher, int64_t micro_batch_size) {
  const auto config = dense_student();
  Learner learner(config, initialize(config, 4), {.learning_rate = 0.1, .schedule = "constant"},
                  {.dtype = at::kFloat, .seed = 3, .micro_batch_size = micro_batch_size, .teacher = &teacher});
  auto result = learner.update(padded_batch(), 1);
  return {std::move(result), learner.weights()};
}

TEST(ModelTeacher, MicroBatchesComputeTheWholeBatch) {
  const ModelTeacher teacher(model_of(sparse_teacher(), 2, at::kFloat), 0.5, 1.0);
  const auto config = dense_student();
  auto whole = first_step(teacher, 0);
  ASSERT_TRUE(whole.result.soft_cross_entropy.has_value());
  for (const int64_t size : {2, 4, 6}) {
    auto cut = first_step(teacher, size);
    EXPECT_NEAR(cut.result.loss, whole.result.loss, 1e-5) << size;
    EXPECT_NEAR(*cut.result.soft_cross_entropy, *whole.result.soft_cross_entropy, 1e-5) << size;
    const auto parameters = list_parameters(config, whole.weights), others = list_parameters(config, cut.weights);
    for (size_t n = 0; n < parameters.size(); ++n)
      EXPECT_TRUE(at::allclose(*parameters[n].tensor, *others[n].tensor, 1e-3, 1e-5)) << parameters[n].spec.name;
  }
  EXPECT_THROW(first_step(teacher, 1), Error) << "two sequences are one group of the teacher's";
}

// What the invariance above depends on: the capacity of evaluation is reached, and changes the answers.
TEST(ModelTeacher, HasTheCapacityOfEvaluation) {
  const auto input = to_tensors(padded_batch(), 0, 8);
  auto wide = sparse_teacher();
  wide.routing.eval_capacity_factor = 8.0;
  const auto all = at::arange(48);
  const auto answers = [&](const ModelConfig& config) {
    const ModelTeacher teacher(model_of(config, 2, at::kFloat), 0.5, 1.0);
    return teacher.soft_targets(input, 1, 0, {}).probabilities(all);
  };
  EXPECT_FALSE(at::allclose(answers(sparse_teacher()), answers(wide)));
}

TEST(ModelTeacher, AStudentThatAnswersLikeItsTeacherStays) {
  const auto config = dense_student();
  const ModelTeacher teacher(model_of(config, 4, at::kFloat), 1.0, 1.0);
  Learner learner(config, initialize(config, 4), {.learning_rate = 0.1, .schedule = "constant"},
                  {.dtype = at::kFloat, .z_loss = 0.0, .seed = 3, .teacher = &teacher});
  EXPECT_LT(learner.update(padded_batch(), 1).gradient_norm, 1e-5);
}

}  // namespace
}  // namespace switchyard
