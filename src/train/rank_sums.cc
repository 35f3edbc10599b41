#include "train/rank_sums.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace switchyard {
namespace {

// Ranks of a tensor group have the same part of the batch: the first one speaks for it.
bool speaks_for_its_part(const Mesh& mesh) { return mesh.place().tensor == 0; }

// Calls take(number) for everything that is summed over the parts of a batch, in a fixed order.
template <class Take>
void for_each_number(StepResult& result, Take&& take) {
  take(result.loss);
  take(result.cross_entropy);
  take(result.load_balance_loss);
  take(result.router_z_loss);
  for (auto* optional : {&result.soft_cross_entropy, &result.importance_loss, &result.load_loss})
    if (*optional) take(**optional);
}

template <class Take>
void for_each_tensor(StepResult& result, Take&& take) {
  for (auto& layer : result.layers)
    for (auto* tensor : {&layer.counts.sums, &layer.load_balance_loss, &layer.load_loss})
      if (tensor->defined()) take(*tensor);
}

void sum_parts(std::vector<PartResult>& parts, const Mesh& mesh) {
  const auto num_parts = at::empty({1}, at::kLong).fill_(static_cast<int64_t>(parts.size()));
  mesh.world()->all_reduce_max(num_parts);  // a rank may have no example of the last ones
  parts.resize(static_cast<size_t>(*num_parts.const_data_ptr<int64_t>()));
  const auto counts = at::zeros({static_cast<int64_t>(parts.size()), 3}, at::kLong);
  const auto losses = at::zeros({static_cast<int64_t>(parts.size())}, at::kDouble);
  auto* count = counts.mutable_data_ptr<int64_t>();
  auto* loss = losses.mutable_data_ptr<double>();
  for (size_t part = 0; speaks_for_its_part(mesh) && part < parts.size(); ++part) {
    count[3 * part] = parts[part].examples;
    count[3 * part + 1] = parts[part].tokens;
    count[3 * part + 2] = parts[part].labels;
    loss[part] = parts[part].loss;
  }
  mesh.world()->all_reduce(counts);
  mesh.world()->all_reduce(losses);
  for (size_t part = 0; part < parts.size(); ++part)
    parts[part] = {count[3 * part], count[3 * part + 1], count[3 * part + 2], loss[part]};
}

}  // namespace

StepTotals sum_totals(StepTotals totals, const Mesh& mesh) {
  if (mesh.world() == nullptr) return totals;
  const auto sums = at::zeros({3}, at::kLong);
  auto* values = sums.mutable_data_ptr<int64_t>();
  if (speaks_for_its_part(mesh)) {
    values[0] = totals.encoder_tokens;
    values[1] = totals.decoder_tokens;
    values[2] = totals.examples;
  }
  mesh.world()->all_reduce(sums);
  return {.sequences = totals.sequences * mesh.num_batch_parts(),
          .encoder_tokens = values[0],
          .decoder_tokens = values[1],
          .examples = values[2]};
}

void sum_results(StepResult& result, double& gradient_squares, const Mesh& mesh) {
  if (mesh.world() == nullptr) return;
  if (!result.parts.empty()) sum_parts(result.parts, mesh);
  int64_t count = 1;
  for_each_number(result, [&](double&) { ++count; });
  for_each_tensor(result, [&](const at::Tensor& tensor) { count += tensor.numel(); });
  const auto sums = at::zeros({count}, at::kDouble);
  auto* values = sums.mutable_data_ptr<double>();
  values[0] = gradient_squares;
  if (speaks_for_its_part(mesh)) {
    int64_t place = 1;
    for_each_number(result, [&](double& number) { values[place++] = number; });
    for_each_tensor(result, [&](const at::Tensor& tensor) {
      sums.narrow(0, place, tensor.numel()).copy_(tensor.reshape({-1}));
      place += tensor.numel();
    });
  }
  mesh.world()->all_reduce(sums);
  gradient_squares = values[0];
  int64_t place = 1;
  for_each_number(result, [&](double& number) { number = values[place++]; });
  for_each_tensor(result, [&](at::Tensor& tensor) {
    tensor = sums.narrow(0, place, tensor.numel()).view(tensor.sizes()).to(tensor.options());
    place += tensor.numel();
  });
}

size_t smallest_over_ranks(size_t mine, size_t none, const Mesh& mesh) {
  if (mesh.world() == nullptr) return mine;
  const auto distance = at::empty({1}, at::kLong).fill_(static_cast<int64_t>(none - mine));
  mesh.world()->all_reduce_max(distance);
  return none - static_cast<size_t>(*distance.const_data_ptr<int64_t>());
}

}  // namespace switchyard
