#include "train/trainer.h"

#include <ATen/core/grad_mode.h>

#include <optional>

#include "base/clock.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/tokenizer_files.h"
#include "checkpoint/training_state.h"
#include "data/prefetch.h"
#include "data/pretraining.h"
#include "data/token_store.h"
#include "eval/text_loss.h"
#include "model/routing_groups.h"
#include "parallel/token_exchange.h"
#include "text/vocabulary.h"
#include "train/run_folder.h"
#include "train/step_metrics.h"

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

}  // namespace

struct Trainer::State {
  RunConfig run;
  Vocabulary vocabulary;
  RunFolder folder;
  LocalExchange exchange;  // one process is the whole group
  std::optional<Learner> learner;
  std::optional<PretrainingData> data;
  std::optional<EvaluationData> evaluation;
  std::optional<BatchPrefetcher> batches;
  int64_t step = 0;
  std::optional<double> last_eval_loss;  // at `step`, for keep-best

  State(const RunConfig& config, const std::filesystem::path& out, bool resume)
      : run(config),
        vocabulary(Vocabulary::load(resolve_vocabulary(config.data.vocab))),
        folder(out, {.keep_last = config.train.keep_last, .keep_best = config.train.keep_best}, resume) {}

  void open_data() {
    const std::filesystem::path cache =
        run.data.cache.empty() ? folder.path().parent_path() / ".cache" : std::filesystem::path(run.data.cache);
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
          EvaluationOptions{.shape = shape,
                            .batch_size = evaluation_batch_size(
                                run.model.routing, run.data.encoder_length,
                                run.train.micro_batch_size > 0 ? run.train.micro_batch_size : run.train.batch_size),
                            .max_examples = run.train.eval_examples});
  }

  ModelWeights first_weights() const {
    if (!run.init.empty()) return open_model(resolve_model_folder(run.init), at::kFloat).weights;
    return initialize(run.model, static_cast<uint64_t>(run.train.seed));
  }

  void open_learner() {
    const auto& checkpoint = folder.resumed_checkpoint();
    learner.emplace(run.model, checkpoint ? open_checkpoint(*checkpoint) : first_weights(), run.optimizer,
                    StepOptions{.dtype = compute_dtype(run),
                                .z_loss = run.train.z_loss,
                                .seed = static_cast<uint64_t>(run.train.seed),
                                .micro_batch_size = run.train.micro_batch_size,
                                .exchange = &exchange});
    if (!checkpoint) return;
    const auto training = read_training_state(*checkpoint);
    learner->load_optimizer_state(training.tensors);
    step = training.step;
  }

  ModelWeights open_checkpoint(const std::filesystem::path& checkpoint) const {
    auto model = open_model(checkpoint, at::kFloat);
    SY_CHECK(fields_to_json(model.config) == fields_to_json(run.model), checkpoint.string(),
             ": its model differs from the run file's [model]; resume with the run file in ", folder.path().string(),
             ", or start a new run with init = \"", checkpoint.string(), "\"");
    return std::move(model.weights);
  }
};

Trainer::Trainer(const RunConfig& run, const std::filesystem::path& out, bool resume) {
  state_ = std::make_unique<State>(run, out, resume);
  auto& state = *state_;
  fit_vocabulary(state.run, state.vocabulary);
  validate(state.run.model);
  if (state.run.optimizer.decay_steps == 0) state.run.optimizer.decay_steps = state.run.train.steps;
  state.open_data();
  const auto& shape = state.data->shape();
  check_micro_batch(state.run.model, {state.run.train.batch_size, shape.encoder_length, shape.decoder_length},
                    state.run.train.micro_batch_size);
  state.open_learner();
  state.folder.start(run_to_toml(state.run), state.step);
  state.batches.emplace([data = &*state.data](int64_t step) { return data->batch(step); }, state.step);
}

Trainer::~Trainer() = default;

const RunConfig& Trainer::run() const { return state_->run; }
const std::filesystem::path& Trainer::folder() const { return state_->folder.path(); }
int64_t Trainer::step() const { return state_->step; }
const ModelWeights& Trainer::weights() const { return state_->learner->weights(); }
const Vocabulary& Trainer::vocabulary() const { return state_->vocabulary; }
int64_t Trainer::num_parameters() const { return state_->learner->num_parameters(); }

int64_t Trainer::tokens_per_step() const {
  return state_->run.train.batch_size * (state_->data->shape().encoder_length + state_->data->shape().decoder_length);
}

StepResult Trainer::train_step() {
  auto& state = *state_;
  const double start = steady_seconds();
  const Batch batch = state.batches->next();
  StepResult result;
  try {
    result = state.learner->update(batch, state.step + 1);
  } catch (const NotFinite& error) {
    throw Error(
        join(error.what(), "; the state before this step is in ", save().string(),
             "; lower optimizer.learning_rate, set optimizer.gradient_clip_norm, or use train.dtype = \"fp32\""));
  }
  ++state.step;
  state.last_eval_loss.reset();
  result.seconds = steady_seconds() - start;
  if (state.step % state.run.train.log_every == 0) state.folder.log(state.step, to_json(result));
  return result;
}

Json Trainer::evaluate() {
  auto& state = *state_;
  if (!state.evaluation) return {};
  const at::NoGradGuard no_grad;
  const double start = steady_seconds();
  const auto weights = cast_weights(state.run.model, state.learner->weights(), compute_dtype(state.run));
  const auto result = text_loss(state.run.model, weights, state.evaluation->num_batches(),
                                [&](int64_t n) { return state.evaluation->batch(n); });
  state.last_eval_loss = result.loss;
  const Json line{{"step", state.step},
                  {"eval_loss", result.loss},
                  {"eval_tokens", result.tokens},
                  {"eval_accuracy", result.accuracy},
                  {"eval_dropped_fraction", result.dropped_fraction},
                  {"eval_seconds", steady_seconds() - start}};
  state.folder.log(state.step, line);
  return line;
}

std::filesystem::path Trainer::save() {
  auto& state = *state_;
  return state.folder.save(state.step, state.last_eval_loss, [&](const std::filesystem::path& folder) {
    save_model(folder, state.run.model, state.learner->weights(),
               {.vocabulary = state.vocabulary.model_bytes(),
                .tokenizer_json = read_tokenizer_file(resolve_vocabulary(state.run.data.vocab))});
    write_training_state(folder, {.step = state.step, .tensors = state.learner->optimizer_state()});
  });
}

}  // namespace switchyard
