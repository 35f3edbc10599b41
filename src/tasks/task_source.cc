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

  const TaskExample* first_long = nullptr;
  size_t longest = 0;
  for (size_t n = 0; n < ids.size(); ++n) {
    auto& [input, target] = ids[n];
    longest = std::max(longest, target.size());
    if (target.size() > longest_target) {
      if (first_long == nullptr) first_long = &examples[n];
      ++left_out_;
      continue;
    }
    if (input.size() > longest_input) {
      input.resize(longest_input);
      if (truncated_inputs_++ == 0) first_truncated_ = examples[n].place;
    }
    input.push_back(vocabulary.eos_id());
    target.push_back(vocabulary.eos_id());
    examples_.push_back(std::move(ids[n]));
  }
  SY_CHECK(first_long == nullptr || options.long_targets == LongTargets::kLeaveOut, first_long->place, ": a target of ",
           "more than decoder_length - 1 = ", longest_target, " tokens, as ", left_out_, " of ", ids.size(),
           " are; targets are never cut: set decoder_length to ", longest + 1, ", or leave such examples out");
  SY_CHECK(!examples_.empty(), "no example is left to train on", left_out_ > 0 ? ": every target is too long" : "");
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
