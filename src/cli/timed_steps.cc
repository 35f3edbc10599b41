#include "cli/timed_steps.h"

#include "base/clock.h"
#include "base/random.h"

namespace switchyard {
namespace {

// Without padding, EOS and the unknown.
std::vector<int32_t> random_ids(int64_t count, int64_t vocab_size, uint64_t seed) {
  NoiseStream noise({.seed = seed, .purpose = NoisePurpose::kShuffle});
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < count; ++n)
    ids.push_back(3 + static_cast<int32_t>(noise.below(static_cast<uint64_t>(vocab_size - 3))));
  return ids;
}

}  // namespace

TimedSteps timed_steps(const ModelConfig& config, const StepOptions& options, int64_t batch, int64_t encoder_length,
                       int64_t decoder_length, int64_t repeats) {
  Learner learner(config, initialize(config, 0), {}, options);
  const Batch input{.batch_size = batch,
                    .encoder_length = encoder_length,
                    .decoder_length = decoder_length,
                    .encoder_input_tokens = random_ids(batch * encoder_length, config.vocab_size, 1),
                    .decoder_target_tokens = random_ids(batch * decoder_length, config.vocab_size, 2)};
  TimedSteps timed;
  for (int64_t step = 1; step <= repeats + 2; ++step) {
    const double start = steady_seconds();
    const auto result = learner.update(input, step);
    timed.last_loss = result.loss;
    if (step <= 2) continue;
    timed.seconds.push_back(steady_seconds() - start);
    timed.optimizer_seconds.push_back(result.optimizer_seconds);
  }
  return timed;
}

}  // namespace switchyard
