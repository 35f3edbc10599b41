#include "cli/run_workload.h"

#include <filesystem>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "data/span_corruption.h"
#include "text/vocabulary.h"
#include "train/run_config.h"

namespace switchyard {

namespace fs = std::filesystem;

RunWorkload read_workload(const std::string& subject, const std::vector<std::string>& settings) {
  RunWorkload result;
  auto& workload = result.workload;
  if (!subject.ends_with(".toml") && !fs::exists(subject)) {
    SY_CHECK(settings.empty(), "--set changes a run file; \"", subject, "\" is not one");
    workload.model = preset(subject);
    return result;
  }
  const auto run = read_run(fs::is_directory(subject) ? (fs::path(subject) / "run.toml").string() : subject, settings);
  workload.model = run.model;
  if (run.init.empty() && fs::exists(run.data.vocab))  // as training does
    workload.model.vocab_size =
        (int64_t{Vocabulary::load(resolve_vocabulary(run.data.vocab)).size()} + 127) / 128 * 128;
  workload.batch_size = run.train.batch_size;
  workload.micro_batch_size = run.train.micro_batch_size > 0 ? run.train.micro_batch_size : run.train.batch_size;
  workload.encoder_length = run.data.encoder_length;
  workload.decoder_length = run.data.decoder_length;
  if (workload.decoder_length == 0)
    workload.decoder_length =
        span_corruption_lengths(run.data.encoder_length, {.noise_density = run.data.noise_density,
                                                          .mean_noise_span_length = run.data.mean_noise_span_length})
            .targets_length;
  workload.recompute_blocks = run.train.recompute_blocks;
  workload.is_bf16 = resolved_dtype(run.train.dtype) == "bf16";
  workload.optimizer = run.optimizer.name;
  workload.muon_experts = run.optimizer.muon_experts;
  workload.min_dim_size_to_factor = run.optimizer.min_dim_size_to_factor;
  result.is_run = true;
  result.layout = {run.parallel.data.value_or(1), run.parallel.expert.value_or(1), run.parallel.tensor.value_or(1)};
  return result;
}

}  // namespace switchyard
