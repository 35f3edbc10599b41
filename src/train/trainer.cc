#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/clock.h"
#include "base/files.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/tokenizer_files.h"
#include "checkpoint/training_state.h"
#include "data/prefetch.h"
#include "data/pretraining.h"
#include "data/token_store.h"
#include "eval/text_loss.h"
#include "optim/gradients.h"
#include "text/vocabulary.h"
#include "train/metrics.h"
#include "train/routing_metrics.h"
#include "train/tensorboard.h"

namespace switchyard {
namespace {

at::ScalarType compute_dtype(const RunConfig& run) { return run.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat; }

// The embedding is sized to the vocabulary in multiples of 128, as the released models' are (32,100 -> 32,128). Weights
// that are continued keep their size.
void fit_vocabulary(RunConfig& run, const Vocabulary& vocabulary) {
  if (run.init.empty()) {
    run.model.vocab_size = (vocabulary.size() + 127) / 128 * 128;
    return;
  }
  SY_CHECK(run.model.vocab_size >= vocabulary.size(), run.data.vocab, ": ", vocabulary.size(),
           " ids with its sentinels, but the embedding of ", run.init, " has ", run.model.vocab_size,
           " rows; use the vocabulary that this model was trained with");
}

// Real tokens of the whole step, by which every micro-batch's sums are divided.
struct StepCounts {
  int64_t encoder_tokens = 0, labels = 0;
};
StepCounts count_tokens(const Batch& batch) {
  const auto real = [](const std::vector<int32_t>& ids) {
    return static_cast<int64_t>(std::count_if(ids.begin(), ids.end(), [](int32_t id) { return id != 0; }));
  };
  return {real(batch.encoder_input_tokens), real(batch.decoder_target_tokens)};
}

}  // namespace

std::vector<OptimizedParameter> optimized_parameters(const std::vector<NamedParameter>& parameters,
                                                     const OptimizerConfig& config) {
  std::vector<OptimizedParameter> list;
  for (const auto& [spec, tensor] : parameters) {
    if (spec.is_buffer) continue;
    const bool is_router = spec.name.find(".router.") != std::string::npos;
    list.push_back({spec.name, tensor->detach(), spec.is_expert, is_router ? config.router_learning_rate_scale : 1.0});
  }
  return list;
}

struct Trainer::State {
  RunConfig run;
  std::filesystem::path folder;
  Vocabulary vocabulary;
  ModelWeights weights;
  std::vector<NamedParameter> parameters;  // what the optimiser updates
  std::optional<Optimizer> optimizer;
  std::optional<PretrainingData> data;
  std::optional<EvaluationData> evaluation;
  std::optional<BatchPrefetcher> batches;
  CheckpointStore checkpoints;
  std::optional<MetricsWriter> metrics;
  std::optional<EventWriter> events;
  int64_t step = 0;
  std::optional<double> last_eval_loss;  // at `step`, for keep-best

  State(const RunConfig& config, const std::filesystem::path& out)
      : run(config),
        folder(out),
        vocabulary(Vocabulary::load(config.data.vocab)),
        checkpoints(out, {.keep_last = config.train.keep_last, .keep_best = config.train.keep_best}) {}

  void open_data() {
    const std::filesystem::path cache =
        run.data.cache.empty() ? folder.parent_path() / ".cache" : std::filesystem::path(run.data.cache);
    const SegmentShape shape{.encoder_length = run.data.encoder_length,
                             .decoder_length = run.data.decoder_length,
                             .corruption = {run.data.noise_density, run.data.mean_noise_span_length}};
    const auto special = special_tokens(vocabulary);
    const auto open = [&](const std::vector<std::string>& text) {
      return TokenStore::open({text.begin(), text.end()}, vocabulary, {.cache_folder = cache});
    };
    data.emplace(
        open(run.data.text), special,
        PretrainingOptions{
            .shape = shape, .seed = static_cast<uint64_t>(run.train.seed), .batch_size = run.train.batch_size});
    if (!run.data.eval_text.empty())
      evaluation.emplace(
          open(run.data.eval_text), special,
          EvaluationOptions{
              .shape = shape, .batch_size = run.train.batch_size, .max_examples = run.train.eval_examples});
  }

  void open_weights(const std::optional<std::filesystem::path>& checkpoint) {
    if (checkpoint) {
      weights = open_checkpoint(*checkpoint);
    } else if (!run.init.empty()) {
      weights = open_model(run.init, at::kFloat).weights;
    } else {
      weights = initialize(run.model, static_cast<uint64_t>(run.train.seed));
    }
    parameters = list_parameters(run.model, weights);
    std::erase_if(parameters, [](const NamedParameter& parameter) { return parameter.spec.is_buffer; });
    for (auto& parameter : parameters) parameter.tensor->requires_grad_();
    optimizer.emplace(run.optimizer, optimized_parameters(parameters, run.optimizer));
    if (!checkpoint) return;
    const auto training = read_training_state(*checkpoint);
    optimizer->load_state(training.tensors);
    step = training.step;
  }

  ModelWeights open_checkpoint(const std::filesystem::path& checkpoint) const {
    auto model = open_model(checkpoint, at::kFloat);
    SY_CHECK(fields_to_json(model.config) == fields_to_json(run.model), checkpoint.string(),
             ": its model differs from the run file's [model]; resume with the run file in ", folder.string(),
             ", or start a new run with init = \"", checkpoint.string(), "\"");
    return std::move(model.weights);
  }

  // Loss and gradients of the whole step, micro-batch by micro-batch; gradients add up in the parameters.
  Json forward_backward(const Batch& batch, RoutingMetrics& routing) {
    const int64_t rows = run.train.micro_batch_size > 0 ? run.train.micro_batch_size : batch.batch_size;
    const auto counts = count_tokens(batch);
    double total = 0.0, cross_entropy = 0.0, balance = 0.0, z = 0.0, importance = 0.0, load = 0.0;
    for (int64_t first = 0; first < batch.batch_size; first += rows) {
      const auto input = to_tensors(batch, first, rows);
      const auto share = [](const at::Tensor& mask, int64_t positions, int64_t all) {
        const auto real = mask.defined() ? mask.sum().item<double>() : static_cast<double>(positions);
        return real / static_cast<double>(std::max<int64_t>(1, all));
      };
      const auto loss =
          compute_loss(run.model, cast_weights(run.model, weights, compute_dtype(run)), input,
                       {.training = true,
                        .seed = static_cast<uint64_t>(run.train.seed),
                        .step = step + 1,
                        .first_example = batch.first_example + first},
                       {.z_loss = run.train.z_loss,
                        .step_labels = counts.labels,
                        .encoder_share = share(input.encoder_mask, input.encoder_ids.numel(), counts.encoder_tokens),
                        .decoder_share = share(input.decoder_mask, input.decoder_ids.numel(), counts.labels)});
      loss.total.backward();
      total += loss.total.item<double>();
      cross_entropy += loss.cross_entropy.item<double>();
      balance += loss.load_balance_loss;
      z += loss.router_z_loss;
      importance += loss.importance_loss;
      load += loss.load_loss;
      routing.add(loss.encoder);
      routing.add(loss.decoder);
    }
    Json line{{"loss", total}, {"cross_entropy", cross_entropy}, {"load_balance_loss", balance}, {"router_z_loss", z}};
    if (run.model.routing.importance_loss_coef > 0) line["importance_loss"] = importance;
    if (run.model.routing.load_loss_coef > 0) line["load_loss"] = load;
    return line;
  }

  std::vector<at::Tensor> take_gradients() {
    std::vector<at::Tensor> gradients;
    for (auto& parameter : parameters) {
      gradients.push_back(parameter.tensor->grad());
      parameter.tensor->mutable_grad() = at::Tensor();
    }
    return gradients;
  }

  [[noreturn]] void stop_not_finite(const std::vector<at::Tensor>& gradients, double loss, Trainer& trainer) {
    const auto where = first_non_finite(gradients);
    const auto saved = trainer.save();
    throw Error(
        join("step ", step + 1, ": ", std::isfinite(loss) ? "a gradient" : "the loss", " is not finite",
             where ? "; first in the gradient of " + parameters[*where].spec.name : "",
             "; the state before this step is in ", saved.string(),
             "; lower optimizer.learning_rate, set optimizer.gradient_clip_norm, or use train.dtype = \"fp32\""));
  }
};

Trainer::Trainer(const RunConfig& run, const std::filesystem::path& out, bool resume) {
  state_ = std::make_unique<State>(run, out);
  auto& state = *state_;
  fit_vocabulary(state.run, state.vocabulary);
  validate(state.run.model);
  if (state.run.optimizer.decay_steps == 0) state.run.optimizer.decay_steps = state.run.train.steps;
  const auto checkpoint = state.checkpoints.newest_complete();
  const bool has_run = checkpoint.has_value() || std::filesystem::exists(out / "metrics.jsonl");
  SY_CHECK(resume || !has_run, out.string(),
           " already holds a run; continue it with --resume, or choose another --out");
  state.open_data();
  state.open_weights(resume ? checkpoint : std::nullopt);
  std::filesystem::create_directories(out);
  write_file_atomically(out / "run.toml", run_to_toml(state.run));
  state.metrics.emplace(out / "metrics.jsonl", state.step);
  state.events.emplace(out, state.step);
  state.batches.emplace([data = &*state.data](int64_t step) { return data->batch(step); }, state.step);
}

Trainer::~Trainer() = default;

const RunConfig& Trainer::run() const { return state_->run; }
const std::filesystem::path& Trainer::folder() const { return state_->folder; }
int64_t Trainer::step() const { return state_->step; }
const ModelWeights& Trainer::weights() const { return state_->weights; }
const Vocabulary& Trainer::vocabulary() const { return state_->vocabulary; }

int64_t Trainer::tokens_per_step() const {
  return state_->run.train.batch_size * (state_->data->shape().encoder_length + state_->data->shape().decoder_length);
}

int64_t Trainer::num_parameters() const {
  int64_t count = 0;
  for (const auto& parameter : state_->parameters) count += parameter.spec.numel();
  return count;
}

Json Trainer::train_step() {
  auto& state = *state_;
  const double start = steady_seconds();
  const Batch batch = state.batches->next();
  RoutingMetrics routing;
  Json line{{"step", state.step + 1}};
  line.update(state.forward_backward(batch, routing));
  const auto gradients = state.take_gradients();
  const double norm = gradient_norm(gradients), loss = line.at("loss").get<double>();
  if (!std::isfinite(loss) || !std::isfinite(norm)) state.stop_not_finite(gradients, loss, *this);
  {
    const at::NoGradGuard no_grad;
    state.optimizer->step_(gradients, state.step + 1, clip_scale(norm, state.run.optimizer.gradient_clip_norm));
    update_selection_biases(state.run.model, state.weights, routing);
  }
  ++state.step;
  state.last_eval_loss.reset();
  const double seconds = steady_seconds() - start;
  line["learning_rate"] = learning_rate(state.run.optimizer, state.step);
  line["gradient_norm"] = norm;
  routing.write(line);
  line["tokens_per_second"] = static_cast<double>(tokens_per_step()) / seconds;
  line["step_seconds"] = seconds;
  if (state.step % state.run.train.log_every == 0) {
    state.metrics->write(line);
    state.events->write(state.step, line);
  }
  return line;
}

double mean_dropped_fraction(const Json& metrics) {
  const Json& layers = metrics.at("dropped_fraction");
  double sum = 0.0;
  for (const auto& [name, value] : layers.items()) sum += value.get<double>();
  return layers.empty() ? 0.0 : sum / static_cast<double>(layers.size());
}

Json Trainer::evaluate() {
  auto& state = *state_;
  if (!state.evaluation) return {};
  const at::NoGradGuard no_grad;
  const double start = steady_seconds();
  const auto weights = cast_weights(state.run.model, state.weights, compute_dtype(state.run));
  const auto result = text_loss(state.run.model, weights, state.evaluation->num_batches(),
                                [&](int64_t n) { return state.evaluation->batch(n); });
  state.last_eval_loss = result.loss;
  const Json line{{"step", state.step},
                  {"eval_loss", result.loss},
                  {"eval_tokens", result.tokens},
                  {"eval_accuracy", result.accuracy},
                  {"eval_dropped_fraction", result.dropped_fraction},
                  {"eval_seconds", steady_seconds() - start}};
  state.metrics->write(line);
  state.events->write(state.step, line);
  return line;
}

std::filesystem::path Trainer::save() {
  auto& state = *state_;
  return state.checkpoints.save(state.step, state.last_eval_loss, [&](const std::filesystem::path& folder) {
    save_model(
        folder, state.run.model, state.weights,
        {.vocabulary = state.vocabulary.model_bytes(), .tokenizer_json = read_tokenizer_file(state.run.data.vocab)});
    write_training_state(folder, {.step = state.step, .tensors = state.optimizer->state()});
  });
}

}  // namespace switchyard
