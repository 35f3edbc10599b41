#include "tasks/task_source.h"

#include <algorithm>
#include <exception>

#include "base/error.h"
#include "base/random.h"

namespace switchyard {

TaskSource::TaskSource(std::span<const TaskExample> examples, const Vocabulary& vocabulary,
                       const TaskSourceOptions& options)
    : options_(options) {
  SY_CHECK(options.encoder_length >= 2 && options.decoder_length >= 2, "encoder_length ", options.encoder_length,
           " and decoder_length ", options.decoder_length, " must hold a token and the EOS");
  SY_CHECK(options.batch_size > 0, "batch_size ", options.batch_size, ": expected at least 1");
  const size_t longest_input = static_cast<size_t>(options.encoder_length - 1);
  const size_t longest_target = static_cast<size_t>(options.decoder_length - 1);
  std::vector<Ids> ids(examples.size());
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 64)
  for (size_t n = 0; n < examples.size(); ++n) {
    try {
      ids[n] = {vocabulary.encode(examples[n].inputs), vocabulary.encode(examples[n].targets)};
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);

  const auto note = [](Long& found, const TaskExample& example) {
    if (found.count++ == 0) found.first = example.place;
  };
  Long refused_inputs, refused_targets;
  size_t most_input = 0, most_target = 0;
  for (size_t n = 0; n < ids.size(); ++n) {
    auto& [input, target] = ids[n];
    most_input = std::max(most_input, input.size());
    most_target = std::max(most_target, target.size());
    const bool long_input = input.size() > longest_input, long_target = target.size() > longest_target;
    if (long_input && options.long_inputs == LongInputs::kRefuse) note(refused_inputs, examples[n]);
    if (long_target && options.long_targets == LongTargets::kRefuse) note(refused_targets, examples[n]);
    if (long_target || (long_input && options.long_inputs != LongInputs::kCut)) {
      note(skipped_, examples[n]);
      continue;
    }
    if (long_input) {
      input.resize(longest_input);
      note(cut_, examples[n]);
    }
    input.push_back(vocabulary.eos_id());
    target.push_back(vocabulary.eos_id());
    examples_.push_back(std::move(ids[n]));
  }
  SY_CHECK(refused_targets.count == 0, refused_targets.first,
           ": a target of more than decoder_length - 1 = ", longest_target, " tokens, as ", refused_targets.count,
           " of ", ids.size(), " are; targets are never cut: set decoder_length to ", most_target + 1,
           ", or long_targets to skip, which leaves such examples out");
  SY_CHECK(refused_inputs.count == 0, refused_inputs.first,
           ": an input of more than encoder_length - 1 = ", longest_input, " tokens, as ", refused_inputs.count, " of ",
           ids.size(), " are; set encoder_length to ", most_input + 1, ", or long_inputs to cut or skip");
  SY_CHECK(!examples_.empty(), "no example is left to train on",
           skipped_.count > 0 ? join(": all ", skipped_.count, " are too long, the first is ", skipped_.first) : "");
}

Batch TaskSource::rows(int64_t step, int64_t first, int64_t count) const {
  check_rows(shape(), first, count);
  const uint64_t size = examples_.size();
  Batch batch;
  batch.batch_size = count;
  batch.encoder_length = options_.encoder_length;
  batch.decoder_length = options_.decoder_length;
  batch.first_example = first;
  batch.encoder_input_tokens.resize(static_cast<size_t>(count * options_.encoder_length));
  batch.decoder_target_tokens.resize(static_cast<size_t>(count * options_.decoder_length));
  for (int64_t row = 0; row < count; ++row) {
    const auto number = static_cast<uint64_t>(step * options_.batch_size + first + row);
    const auto& [input, target] =
        examples_[permute(number % size, size, {options_.seed, NoisePurpose::kShuffle, number / size})];
    std::copy(input.begin(), input.end(), batch.encoder_input_tokens.begin() + row * options_.encoder_length);
    std::copy(target.begin(), target.end(), batch.decoder_target_tokens.begin() + row * options_.decoder_length);
  }
  return batch;
}

}  // namespace switchyard
