#include "train/trainer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/messages.h"
#include "checkpoint/model_parts.h"
#include "checkpoint/tokenizer_files.h"
#include "checkpoint/training_state.h"
#include "data/prefetch.h"
#include "model/flops.h"
#include "model/routing_groups.h"
#include "text/vocabulary.h"
#include "train/first_values.h"
#include "train/open_teacher.h"
#include "train/product_rate.h"
#include "train/run_folder.h"
#include "train/settings.h"
#include "train/slot_runs.h"
#include "train/sources.h"
#include "train/step_metrics.h"

namespace switchyard {
namespace {

// The embedding is sized to the vocabulary in multiples of 128, as the released models' are (32,100 -> 32,128). Weights
// that are continued keep their size.
void fit_vocabulary(RunConfig& run, const Vocabulary& vocabulary) {
  if (run.init.empty() && run.distill.teacher.empty()) {
    run.model.vocab_size = (int64_t{vocabulary.size()} + 127) / 128 * 128;
    return;
  }
  const auto& from = run.init.empty() ? run.distill.teacher : run.init;
  if (run.init.empty()) run.model.vocab_size = open_config(resolve_model_folder(from)).vocab_size;
  SY_CHECK(run.model.vocab_size >= vocabulary.size(), run.data.vocab, ": ", vocabulary.size(),
           " ids with its sentinels, but the embedding of ", from, " has ", run.model.vocab_size,
           " rows; use the vocabulary that this model was trained with");
}

CheckpointStoreOptions kept_checkpoints(const TrainConfig& train) {
  return {.keep_last = train.keep_last,
          .keep_best = train.keep_best,
          .best_metric = train.best_metric,
          .higher_is_better = train.best_direction == "higher"};
}

}  // namespace

at::ScalarType compute_dtype(const RunConfig& run) { return run.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat; }

struct Trainer::State {
  const Mesh& mesh;
  RunConfig run;
  at::Device device;  // where weights and batches are
  Vocabulary vocabulary;
  std::filesystem::path out;
  std::optional<RunFolder> folder;  // on the first rank
  std::optional<std::filesystem::path> resumed_checkpoint;
  std::unique_ptr<Teacher> teacher;
  std::optional<Learner> learner;
  std::unique_ptr<ExampleSource> examples;
  std::vector<std::unique_ptr<Evaluator>> evaluators;
  std::optional<BatchPrefetcher> batches;
  Json settings;  // as checkpoints keep them
  int64_t step = 0, examples_seen = 0, tokens_seen = 0;
  std::vector<PartProgress> parts;             // of a mixture, in its order
  double step_flops = 0.0, rate = 0.0;         // of one step; of this machine in a second
  std::optional<std::filesystem::path> saved;  // the checkpoint of this step
  std::vector<NamedNumber> evaluation;         // of this step; empty if it was not evaluated
  std::optional<double> best_value;            // of best_metric in all evaluations so far
  int64_t evaluations_without_gain = 0;        // since then

  State(const RunConfig& config, std::filesystem::path folder_path, at::Device where, const Mesh& ranks)
      : mesh(ranks),
        run(config),
        device(where),
        vocabulary(Vocabulary::load(resolve_vocabulary(config.data.vocab))),
        out(std::move(folder_path)) {}

  void open_folder(bool resume) {
    const auto checkpoint = mesh.from_first("run folder", [&] {
      folder.emplace(out, kept_checkpoints(run.train), resume);
      return folder->resumed_checkpoint() ? folder->resumed_checkpoint()->string() : "";
    });
    if (!checkpoint.empty()) resumed_checkpoint = checkpoint;
  }

  void open_examples() {
    const auto cache = out.parent_path() / ".cache";
    const auto open = [&] {
      examples = open_training_examples(run, vocabulary, cache);
      evaluators = open_evaluators(run, vocabulary, cache);
      return std::string();
    };
    mesh.from_first("examples", open);  // which may tokenise text, once
    if (!mesh.is_first()) open();
    for (const auto& name : examples->part_names()) parts.push_back({.name = name});
  }

  // Sequences of a step that are this rank's.
  int64_t num_rows() const {
    const int64_t sequences = examples->shape().batch_size, shares = mesh.num_batch_parts();
    SY_CHECK(sequences % shares == 0, "train.batch_size = ", sequences,
             " cannot be shared out evenly among [parallel] data x expert = ", shares, "; expected a multiple of ",
             shares);
    return sequences / shares;
  }

  void open_learner(bool allow_changes) {
    const auto& checkpoint = resumed_checkpoint;
    settings = training_settings(run, vocabulary, *examples);
    const auto begun = checkpoint ? read_training_step(*checkpoint) : TrainingState{};
    if (checkpoint) check_settings(begun.state, allow_changes);
    teacher = open_teacher(run, settings, *examples, begun.step, out.parent_path() / ".cache", device, mesh);
    const bool adapts = run.train.lora_rank > 0;  // its weights are init's, with what the checkpoint adds
    learner.emplace(run.model,
                    checkpoint && !adapts ? checkpoint_values(run, *checkpoint, out) : first_values(run, device),
                    run.optimizer,
                    StepOptions{.dtype = compute_dtype(run),
                                .z_loss = run.train.z_loss,
                                .seed = static_cast<uint64_t>(run.train.seed),
                                .micro_batch_size = run.train.micro_batch_size,
                                .recompute_blocks = run.train.recompute_blocks,
                                .frozen = run.train.frozen,
                                .teacher = teacher.get(),
                                .low_rank = {run.train.lora_rank, run.train.lora_alpha}},
                    mesh, device);
    if (!checkpoint) return;
    if (adapts) learner->load_low_rank(checkpoint_adapters(run, *checkpoint));
    const auto training = read_training_state(*checkpoint);
    learner->load_optimizer_state(assemble_slots(learner->optimizer_state(), training.tensors));
    step = training.step;
    const auto shape = examples->shape();  // what earlier versions did not count has this step's shape
    examples_seen = training.state.value("examples_seen", step * shape.batch_size);
    tokens_seen = training.state.value("tokens_seen", step * shape.positions());
    for (auto& part : parts) {
      const auto seen = training.state.value("parts", Json::object()).value(part.name, Json::object());
      part.examples = seen.value("examples", int64_t{0});
      part.tokens = seen.value("tokens", int64_t{0});
    }
    if (training.state.contains("best_value")) best_value = training.state.at("best_value").get<double>();
    evaluations_without_gain = training.state.value("evaluations_without_gain", int64_t{0});
    saved = *checkpoint;
  }

  // Three times the forward pass: the backward pass takes two products where that takes one.
  void measure() {
    const auto shape = examples->shape();
    step_flops = 3.0 * static_cast<double>(shape.batch_size) *
                 forward_flops(run.model, shape.encoder_length, shape.decoder_length);
    mesh.barrier();
    if (mesh.is_first())
      rate = switchyard::product_rate(compute_dtype(run)) * static_cast<double>(mesh.layout().num_ranks());
    mesh.barrier();  // the others wait, so that it is the rate of a free machine
  }

  RunProgress progress() const {
    const auto epoch = static_cast<double>(examples->examples_per_epoch());
    return {.tokens_seen = tokens_seen,
            .epochs = epoch > 0 ? static_cast<double>(examples_seen) / epoch : 0.0,
            .flops = step_flops,
            .product_rate = rate,
            .parts = parts};
  }

  // Keeps account of best_metric.
  void note_evaluation() {
    const auto& train = run.train;
    const auto value = find_number(evaluation, train.best_metric);
    std::string names;
    for (const auto& number : evaluation) names += (names.empty() ? "" : ", ") + number.name;
    SY_CHECK(value || train.best_metric == TrainConfig{}.best_metric, "train.best_metric = \"", train.best_metric,
             "\" is none of what an evaluation gives: ", names);
    const bool higher = train.best_direction == "higher";
    const bool gains =
        value && std::isfinite(*value) && (!best_value || (higher ? *value > *best_value : *value < *best_value));
    if (gains) best_value = value;
    evaluations_without_gain = gains ? 0 : evaluations_without_gain + 1;
  }

  Json state_json() const {
    Json state{{"settings", settings},
               {"examples_seen", examples_seen},
               {"tokens_seen", tokens_seen},
               {"parts", parts_seen()},
               {"evaluations_without_gain", evaluations_without_gain}};
    if (best_value) state["best_value"] = *best_value;
    return state;
  }

  Json parts_seen() const {
    Json seen = Json::object();
    for (const auto& part : parts) seen[part.name] = {{"examples", part.examples}, {"tokens", part.tokens}};
    return seen;
  }

  void check_settings(const Json& state, bool allow_changes) const {
    const auto changes = changed_settings(state.value("settings", Json::object()), settings);
    if (changes.empty()) return;
    std::string list;
    for (const auto& change : changes) list += "\n  " + change;
    const std::string checkpoint = resumed_checkpoint->string();
    SY_CHECK(allow_changes, checkpoint, " was trained with other settings:", list, "\nresume with ",
             (out / "run.toml").string(), ", or add --allow-changes to go on with the new settings");
    say("resuming ", checkpoint, " with other settings:", list);
  }

  SaveOptions model_files() const {
    return {.vocabulary = vocabulary.model_bytes(),
            .tokenizer_json = read_tokenizer_file(resolve_vocabulary(run.data.vocab))};
  }

  // This rank's share of a checkpoint.
  void write_share(const std::filesystem::path& checkpoint) const {
    std::vector<ModelPart> own;
    for (size_t unit = 0; unit < learner->own_units().size(); ++unit)
      own.push_back(
          {learner->own_units()[unit].parameter, learner->own_units()[unit].experts, learner->own_values()[unit]});
    if (mesh.is_first()) add_buffers(own);
    const int64_t count = mesh.layout().num_ranks();
    write_model_part(checkpoint, run.model, own, mesh.rank(), count, at::kFloat);
    write_training_tensors(checkpoint, learner->optimizer_state(), mesh.rank(), count);
  }

  // What no rank updates by its optimiser is the same on all.
  void add_buffers(std::vector<ModelPart>& own) const {
    ModelWeights handles = learner->weights();
    const auto parameters = list_parameters(run.model, handles);
    for (size_t parameter = 0; parameter < parameters.size(); ++parameter)
      if (parameters[parameter].spec.is_buffer()) own.push_back({parameter, {0, 1}, *parameters[parameter].tensor});
  }

  void finish_checkpoint(const std::filesystem::path& checkpoint) const {
    finish_model(checkpoint, run.model, model_files());
    write_training_step(checkpoint, step, state_json());
  }

  std::filesystem::path save_on_all_ranks() {
    const std::string name = join("checkpoint ", step, evaluation.empty() ? "" : " evaluated");
    const std::filesystem::path temporary = mesh.from_first(name, [&] {
      const auto begun = folder->begin(step);
      begin_model(begun);
      return begun.string();
    });
    write_share(temporary);
    mesh.barrier();
    return mesh.from_first(name + " done", [&] {
      finish_checkpoint(temporary);
      return folder->commit(step, evaluation).string();
    });
  }

  void save_weights(const std::filesystem::path& checkpoint) {
    if (learner->low_rank() == nullptr) return save_model(checkpoint, run.model, learner->weights(), model_files());
    auto adapters = learner->low_rank()->adapters();
    adapters.base = adapted_folder(run);
    save_adapters(checkpoint, run.model, adapters, model_files());
  }

  std::filesystem::path save_alone() {
    return folder->save(step, evaluation, [&](const std::filesystem::path& checkpoint) {
      save_weights(checkpoint);
      write_training_tensors(checkpoint, learner->optimizer_state(), 0, 1);
      write_training_step(checkpoint, step, state_json());
    });
  }
};

namespace {

const Mesh& one_rank() {
  static const Mesh mesh;
  return mesh;
}

}  // namespace

Trainer::Trainer(const RunConfig& run, const std::filesystem::path& out, const ResumeOptions& options,
                 at::Device device)
    : Trainer(run, out, options, device, one_rank()) {}

Trainer::Trainer(const RunConfig& run, const std::filesystem::path& out, const ResumeOptions& options,
                 at::Device device, const Mesh& mesh) {
  state_ = std::make_unique<State>(run, out, device, mesh);
  auto& state = *state_;
  state.open_folder(options.resume);
  fit_vocabulary(state.run, state.vocabulary);
  validate(state.run.model);
  state.run.train.dtype = resolved_dtype(state.run.train.dtype);
  const bool decays = state.run.optimizer.schedule == "linear" || state.run.optimizer.schedule == "cosine" ||
                      state.run.optimizer.schedule == "trapezoid";
  if (decays && state.run.optimizer.decay_steps == 0) state.run.optimizer.decay_steps = state.run.train.steps;
  state.open_examples();
  const auto shape = state.examples->shape();
  const int64_t rows = state.num_rows();
  rows_of_pass(state.run.model, {shape.batch_size, shape.encoder_length, shape.decoder_length}, mesh.num_batch_parts(),
               state.run.train.micro_batch_size);
  state.open_learner(options.allow_changes);
  state.measure();
  if (state.folder) state.folder->start(run_to_toml(state.run), state.step);
  state.batches.emplace(
      *state.examples,
      PrefetchOptions{.first_step = state.step, .first_row = mesh.batch_part() * rows, .num_rows = rows});
}

Trainer::~Trainer() = default;

const RunConfig& Trainer::run() const { return state_->run; }
const std::filesystem::path& Trainer::folder() const { return state_->out; }
int64_t Trainer::step() const { return state_->step; }
const ModelWeights& Trainer::weights() const { return state_->learner->weights(); }
const Vocabulary& Trainer::vocabulary() const { return state_->vocabulary; }
int64_t Trainer::num_parameters() const { return state_->learner->num_parameters(); }

double Trainer::epochs() const { return state_->progress().epochs; }
double Trainer::product_rate() const { return state_->rate; }
const ExampleSource& Trainer::examples() const { return *state_->examples; }
const std::vector<NamedNumber>& Trainer::evaluation() const { return state_->evaluation; }
std::optional<BestCheckpoint> Trainer::best() const { return state_->folder ? state_->folder->best() : std::nullopt; }
const Mesh& Trainer::mesh() const { return state_->mesh; }
const std::optional<std::filesystem::path>& Trainer::checkpoint() const { return state_->saved; }

int64_t Trainer::tokens_per_step() const { return state_->examples->shape().positions(); }

StepResult Trainer::train_step() {
  auto& state = *state_;
  const double start = steady_seconds();
  const Batch batch = state.batches->next();
  StepResult result;
  try {
    result = state.learner->update(batch, state.step + 1);
  } catch (const NotFinite& error) {
    throw Error(
        join(error.what(), "; the state before this step is in ", (state.saved ? *state.saved : save()).string(),
             "; lower optimizer.learning_rate, set optimizer.gradient_clip_norm, or use train.dtype = \"fp32\""));
  }
  ++state.step;
  state.examples_seen += result.examples;
  state.tokens_seen += result.tokens;
  for (size_t n = 0; n < result.parts.size(); ++n) {
    state.parts[n].examples += result.parts[n].examples;
    state.parts[n].tokens += result.parts[n].tokens;
  }
  state.saved.reset();
  state.evaluation.clear();
  result.seconds = steady_seconds() - start;
  if (state.folder && state.step % state.run.train.log_every == 0) state.folder->log(state.step, metrics_of(result));
  return result;
}

Json Trainer::metrics_of(const StepResult& result) const { return to_json(result, state_->progress()); }

const std::vector<NamedNumber>& Trainer::evaluate() {
  auto& state = *state_;
  if (state.evaluators.empty() || !state.evaluation.empty()) return state.evaluation;
  const at::NoGradGuard no_grad;
  const double start = steady_seconds();
  const auto weights = state.learner->shared_weights();
  state.evaluation = evaluate(state.run.model, weights);
  if (state.folder) state.folder->log(state.step, to_json(state.step, state.evaluation, steady_seconds() - start));
  state.note_evaluation();
  return state.evaluation;
}

std::vector<NamedNumber> Trainer::evaluate(const ModelConfig& config, const ComputeWeights& weights) const {
  const at::NoGradGuard no_grad;
  std::vector<NamedNumber> numbers;
  for (const auto& evaluator : state_->evaluators)
    for (auto& number : evaluator->evaluate(config, weights)) numbers.push_back(std::move(number));
  return numbers;
}

bool Trainer::is_done() const {
  const auto& train = state_->run.train;
  return state_->step >= train.steps ||
         (train.early_stopping_patience > 0 && state_->evaluations_without_gain >= train.early_stopping_patience);
}

bool Trainer::has_new_best() const {
  const auto& state = *state_;
  return state.run.train.keep_best && !state.evaluation.empty() &&
         state.mesh.any(state.folder && state.folder->is_new_best(state.evaluation));
}

bool Trainer::is_interrupted() const { return state_->mesh.any(interrupted()); }

std::filesystem::path Trainer::save() {
  auto& state = *state_;
  if (state.saved && state.evaluation.empty()) return *state.saved;
  state.saved = state.mesh.world() == nullptr ? state.save_alone() : state.save_on_all_ranks();
  return *state.saved;
}

}  // namespace switchyard
