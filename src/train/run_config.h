// The run file of `switchyard train`: [model], [routing], [data], [train], [optimizer], [distill], [parallel].
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "data/mixture.h"
#include "model/config.h"
#include "optim/optimizer.h"
#include "tasks/task_source.h"

namespace switchyard {

// One source of a mixture: text or a task.
struct MixtureEntry {
  std::vector<std::string> text;
  bool each_file = false;  // of text: a part of its own
  std::string task;
  std::string folder;  // of the task; empty: [data] folder
  std::string split = "train";
  std::string name;  // in metrics; empty: the task, or the first text file's name
  double rate = 0.0;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("text", self.text, "training text, as data.text; or");
    field("each_file", self.each_file, "each file of text is a part of its own, named after it: one a language, say");
    field("task", self.task, "a task, as data.task");
    field("folder", self.folder, "folder that holds the task's folder; empty: data.folder");
    field("split", self.split, "split of the task");
    field("name", self.name, "its name in metrics; empty: the task, or the first text file's name without endings");
    field("rate", self.rate, "how often its examples come, against the other rates (mixture_rule rates)");
  }
};

struct DataConfig {
  std::vector<std::string> text;       // training text: files or folders
  std::vector<std::string> eval_text;  // held-out text
  bool eval_each_file = false;
  std::vector<std::string> eval_tasks;
  std::string eval_split;             // of these; empty: each task's own
  std::string task;                   // in place of text: a task's name, or its file
  std::string folder;                 // that holds the tasks' folders
  std::string split = "train";        // of the task
  std::vector<MixtureEntry> mixture;  // in place of both
  MixtureRule mixture_rule = MixtureRule::kRates;
  int64_t mixture_maximum = 0;
  double mixture_temperature = 1.0;
  bool pack = false;
  std::string vocab;  // spiece.model, a model directory or a run's folder
  int64_t encoder_length = 512;
  int64_t decoder_length = 0;  // 0: what span corruption needs for encoder_length (114 for 512)
  LongInputs long_inputs = LongInputs::kCut;
  LongTargets long_targets = LongTargets::kRefuse;
  double noise_density = 0.15;
  double mean_noise_span_length = 3.0;
  std::string cache;  // folder of tokenised shards; empty: `.cache` beside the run's folder

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("text", self.text, "training text: .txt, .jsonl (field text), also .gz or .zst, or folders of them");
    field("eval_text", self.eval_text, "held-out text, same forms");
    field("eval_each_file", self.eval_each_file, "also gives eval_loss_FILE for each file of eval_text");
    field("eval_tasks", self.eval_tasks, "tasks whose metrics an evaluation measures, as eval_TASK_METRIC");
    field("eval_split", self.eval_split, "split of eval_tasks; empty: validation, or test where there is none");
    field("task", self.task, "train on a task in place of text: glue_sst2, ..., or a .toml file of one's own");
    field("folder", self.folder, "folder that holds the tasks' folders");
    field("split", self.split, "split of the task to train on");
    field("mixture", self.mixture, "several texts and tasks in place of either, each a [[data.mixture]]");
    field("mixture_rule", self.mixture_rule, "rates as given, proportional to examples, or equal");
    field("mixture_maximum", self.mixture_maximum, "proportional: no source counts as more examples; 0: no limit");
    field("mixture_temperature", self.mixture_temperature,
          "proportional: rates are to the power 1 / temperature (mT5's exponent 0.3: 3.333)");
    field("pack", self.pack, "several examples of a task or mixture one behind the other in a row, as they fit");
    field("vocab", self.vocab, "SentencePiece model, made by `switchyard vocab train`, or a model directory or run");
    field("encoder_length", self.encoder_length, "encoder tokens an example");
    field("decoder_length", self.decoder_length, "decoder tokens an example; 0: as many as span corruption gives");
    field("long_inputs", self.long_inputs, "inputs of a task that encoder_length does not hold: cut, skip or refuse");
    field("long_targets", self.long_targets, "targets that decoder_length does not hold: refuse or skip, never cut");
    field("noise_density", self.noise_density, "share of tokens that span corruption masks");
    field("mean_noise_span_length", self.mean_noise_span_length, "mean length of a masked span, tokens");
    field("cache", self.cache, "folder for tokenised text; empty: .cache beside the run's folder");
  }
};

struct TrainConfig {
  int64_t steps = 1000;
  int64_t batch_size = 8;        // sequences a step, over all ranks
  int64_t recompute_blocks = 0;  // of each stack
  int64_t micro_batch_size = 0;  // sequences a forward pass; 0: the whole batch
  int64_t seed = 0;
  std::string dtype = "auto";
  double z_loss = 1e-4;
  int64_t log_every = 1;
  int64_t eval_every = 200;    // 0: only at the end
  int64_t eval_examples = 64;  // held-out sequences an evaluation
  int64_t eval_task_examples = 0;
  bool eval_rank = false;
  int64_t early_stopping_patience = 0;
  std::vector<std::string> frozen;
  int64_t lora_rank = 0;
  double lora_alpha = 16.0;
  int64_t save_every = 200;  // 0: only at the end
  int64_t keep_last = 3;     // checkpoints
  bool keep_best = true;
  std::string best_metric = "eval_loss";
  std::string best_direction = "lower";

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("steps", self.steps, "optimiser updates");
    field("batch_size", self.batch_size, "sequences a step, over all ranks");
    field("recompute_blocks", self.recompute_blocks,
          "the first blocks of each stack keep their input alone and are computed again for their gradient; 0: none");
    field("micro_batch_size", self.micro_batch_size, "sequences a forward pass (gradient accumulation); 0: all");
    field("seed", self.seed, "of initial weights, data order and noise");
    field("dtype", self.dtype,
          "compute precision: bf16, fp32, or auto: bf16 where the processor has it; weights are fp32");
    field("z_loss", self.z_loss, "weight of log(Z)^2 of the output softmax, training only");
    field("log_every", self.log_every, "steps between lines of metrics.jsonl");
    field("eval_every", self.eval_every, "steps between evaluations on eval_text; 0: only at the end");
    field("eval_examples", self.eval_examples,
          "held-out sequences an evaluation uses; of each file with eval_each_file");
    field("eval_task_examples", self.eval_task_examples, "examples of each of eval_tasks, the first; 0: all");
    field("eval_rank", self.eval_rank, "answer eval_tasks with the likeliest label or choice, not with free text");
    field("early_stopping_patience", self.early_stopping_patience,
          "stop after so many evaluations in a row without a gain in best_metric; 0: never");
    field("frozen", self.frozen,
          "weights that stay as they are: experts, routers, non_experts, attention, feed_forward, embeddings, norms");
    field("lora_rank", self.lora_rank,
          "train low-rank updates of attention and dense feed-forward matrices alone, of this rank; 0: the weights");
    field("lora_alpha", self.lora_alpha, "these updates count lora_alpha / lora_rank");
    field("save_every", self.save_every, "steps between checkpoints; 0: only at the end");
    field("keep_last", self.keep_last, "newest checkpoints that are kept");
    field("keep_best", self.keep_best, "also keep the best checkpoint; a new best is saved when it is found");
    field("best_metric", self.best_metric, "number of an evaluation by which checkpoints are best");
    field("best_direction", self.best_direction, "lower or higher best_metric is better");
  }
};

// A teacher beside the labels (Switch §4.2).
struct DistillConfig {
  std::string teacher;  // MODEL; empty: none
  double teacher_weight = 0.25;
  double temperature = 1.0;
  int64_t cache_top_k = 0;
  std::string cache;  // folder
  bool inherit = true;
  std::string baseline;  // MODEL

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("teacher", self.teacher, "model directory or run that teaches (`switchyard distill --teacher`)");
    field("teacher_weight", self.teacher_weight, "weight of its probabilities in the loss; the labels have the rest");
    field("temperature", self.temperature, "of both models in the teacher's part, which counts its square");
    field("cache_top_k", self.cache_top_k,
          "write the teacher's likeliest answers to each token once, so many, and learn from these; 0: it runs beside");
    field("cache", self.cache, "folder of these answers; empty: one for each teacher and data in data.cache");
    field("inherit", self.inherit, "without init, start from every weight that the teacher has outside experts");
    field("baseline", self.baseline, "model trained without a teacher: the report says what share of the gain is kept");
  }
};

struct ParallelConfig {
  std::optional<int64_t> data = 1, expert = 1, tensor = 1;  // ranks along an axis; none: chosen by complete_layout()
  double timeout_seconds = 120.0;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("data", self.data, "ranks that each have all experts and a part of the batch; or auto: what is left");
    field("expert", self.expert, "ranks among which experts and a part of the batch are shared out; or auto");
    field("tensor", self.tensor, "ranks among which heads, hidden features and vocabulary are cut; auto is 1");
    field("timeout_seconds", self.timeout_seconds, "longest wait for a rank that does not answer");
  }
};

struct RunConfig {
  std::string preset;  // or
  std::string init;    // a model directory to continue from, or a run's folder: resolve_model_folder()
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  DistillConfig distill;
  ParallelConfig parallel;
};

// Reads and checks a run: preset, init or the dense twin of distill.teacher first, then what a routing convention sets,
// then the other keys of [model] and [routing] over it. Relative paths are taken from `folder`.
// `checkpoint`: of a run that goes on; it knows the model, so that the folder that init names may be gone.
// Throws Error naming place, key and what is allowed.
RunConfig resolve_run(const ConfigDocument& document, const std::filesystem::path& folder,
                      const std::optional<std::filesystem::path>& checkpoint = {});

// The run of a file with `settings` ("section.key=value") over it; relative paths are taken from the file's folder.
RunConfig read_run(const std::filesystem::path& file, const std::vector<std::string>& settings,
                   const std::optional<std::filesystem::path>& checkpoint = {});

// "auto" as "bf16" where the processor multiplies it, else "fp32"; other names as they are.
std::string resolved_dtype(const std::string& dtype);

// The resolved run as TOML that resolve_run reads back to the same run.
std::string run_to_toml(const RunConfig& run);

// The text of `switchyard train --help-config`.
std::string describe_run_config();

}  // namespace switchyard
