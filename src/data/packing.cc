#include "data/packing.h"

#include <algorithm>

#include "base/error.h"

namespace switchyard {
namespace {

// An example without its padding.
struct Example {
  std::vector<int32_t> inputs, targets;
  int32_t part = -1;
};

std::vector<int32_t> without_padding(std::vector<int32_t> ids) {
  while (!ids.empty() && ids.back() == 0) ids.pop_back();
  return ids;
}

// A row on its way: its examples, and how much of it they fill.
struct Row {
  std::vector<Example> examples;
  size_t inputs = 0, targets = 0;
};

void append(const std::vector<int32_t>& ids, int32_t segment, size_t& at, std::vector<int32_t>& tokens,
            std::vector<int32_t>& segments) {
  std::copy(ids.begin(), ids.end(), tokens.begin() + static_cast<int64_t>(at));
  std::fill_n(segments.begin() + static_cast<int64_t>(at), ids.size(), segment);
  at += ids.size();
}

}  // namespace

struct PackedSource::Step {
  int64_t number = 0;
  std::vector<Row> rows;
  int64_t num_examples = 0;
};

PackedSource::PackedSource(std::unique_ptr<ExampleSource> examples, int64_t batch_size)
    : examples_(std::move(examples)), batch_size_(batch_size) {
  SY_CHECK(batch_size > 0, "batch_size ", batch_size, ": expected at least 1");
  SY_CHECK(examples_->shape().batch_size == 1, "packing takes one example a step, the source has ",
           examples_->shape().batch_size);
}

SourceShape PackedSource::shape() const {
  auto shape = examples_->shape();
  shape.batch_size = batch_size_;
  return shape;
}

std::shared_ptr<const PackedSource::Step> PackedSource::pack(int64_t step, int64_t first_example) const {
  const auto shape = examples_->shape();
  const auto encoder_length = static_cast<size_t>(shape.encoder_length),
             decoder_length = static_cast<size_t>(shape.decoder_length);
  auto packed = std::make_shared<Step>();
  packed->number = step;
  packed->rows.resize(static_cast<size_t>(batch_size_));
  while (true) {
    Batch batch = examples_->rows(first_example + packed->num_examples, 0, 1);
    Example example{.inputs = without_padding(std::move(batch.encoder_input_tokens)),
                    .targets = without_padding(std::move(batch.decoder_target_tokens)),
                    .part = batch.part.empty() ? -1 : batch.part[0]};
    // An example without tokens would fit into every row, and the step would never end.
    SY_CHECK(!example.inputs.empty() && !example.targets.empty(), "example ", first_example + packed->num_examples,
             " is empty");
    const auto row = std::find_if(packed->rows.begin(), packed->rows.end(), [&](const Row& open) {
      return open.inputs + example.inputs.size() <= encoder_length &&
             open.targets + example.targets.size() <= decoder_length;
    });
    if (row == packed->rows.end()) return packed;
    row->inputs += example.inputs.size();
    row->targets += example.targets.size();
    row->examples.push_back(std::move(example));
    ++packed->num_examples;
  }
}

std::shared_ptr<const PackedSource::Step> PackedSource::step_of(int64_t number) const {
  const std::lock_guard lock(mutex_);
  if (latest_ && latest_->number == number) return latest_;
  while (static_cast<int64_t>(first_example_.size()) <= number)
    first_example_.push_back(
        first_example_.back() +
        pack(static_cast<int64_t>(first_example_.size()) - 1, first_example_.back())->num_examples);
  latest_ = pack(number, first_example_[static_cast<size_t>(number)]);
  if (static_cast<int64_t>(first_example_.size()) == number + 1)
    first_example_.push_back(first_example_.back() + latest_->num_examples);
  return latest_;
}

Batch PackedSource::rows(int64_t step, int64_t first, int64_t count) const {
  const auto shape = this->shape();
  check_rows(shape, first, count);
  const auto packed = step_of(step);
  Batch batch{.batch_size = count,
              .encoder_length = shape.encoder_length,
              .decoder_length = shape.decoder_length,
              .first_example = first};
  for (auto* side : {&batch.encoder_input_tokens, &batch.encoder_segment})
    side->assign(static_cast<size_t>(count * shape.encoder_length), 0);
  for (auto* side : {&batch.decoder_target_tokens, &batch.decoder_segment})
    side->assign(static_cast<size_t>(count * shape.decoder_length), 0);
  int64_t example = 0;  // examples are numbered row by row: those of a row are neighbours
  for (int64_t row = 0; row < first; ++row)
    example += static_cast<int64_t>(packed->rows[static_cast<size_t>(row)].examples.size());
  for (int64_t row = 0; row < count; ++row) {
    batch.row_example.push_back(example);
    auto input = static_cast<size_t>(row * shape.encoder_length),
         target = static_cast<size_t>(row * shape.decoder_length);
    int32_t segment = 0;
    for (const auto& one : packed->rows[static_cast<size_t>(first + row)].examples) {
      ++segment;
      append(one.inputs, segment, input, batch.encoder_input_tokens, batch.encoder_segment);
      append(one.targets, segment, target, batch.decoder_target_tokens, batch.decoder_segment);
      if (one.part >= 0) batch.part.push_back(one.part);
      ++example;
    }
  }
  batch.row_example.push_back(example);
  return batch;
}

}  // namespace switchyard
