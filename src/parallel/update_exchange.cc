#include "parallel/update_exchange.h"

#include <ATen/ops/add.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr int64_t kBucketNumel = int64_t{1} << 22;  // 16 MiB of f32: of a rank's own part

at::TensorOptions f32() { return at::TensorOptions(at::kFloat); }

}  // namespace

UpdateExchange::UpdateExchange(const std::vector<ParameterSpec>& specs, const Mesh& mesh, std::vector<bool> is_trained)
    : mesh_(mesh),
      plan_(update_plan(specs, mesh.layout())),
      is_trained_(std::move(is_trained)),
      bucket_of_(specs.size()),
      gradients_(specs.size()) {
  for (const auto& unit : plan_.units) {
    own_index_.push_back(unit.owner == mesh_.rank() ? own_.size() : plan_.units.size());
    if (unit.owner == mesh_.rank()) own_.push_back(unit);
  }
  if (mesh_.world() == nullptr) return;
  const auto num_ranks = static_cast<size_t>(mesh_.layout().num_ranks());
  const auto& held = plan_.shards.ranks[static_cast<size_t>(mesh_.rank())];
  int64_t numel = 0;
  size_t unit = plan_.units.size();
  for (size_t parameter = specs.size(); parameter-- > 0;) {
    if (!is_trained_[parameter]) {
      for (; unit > 0 && plan_.units[unit - 1].parameter == parameter; --unit) continue;
      continue;
    }
    if (buckets_.empty() || numel >= kBucketNumel) {
      buckets_.emplace_back();
      buckets_.back().send_numel.resize(num_ranks);
      buckets_.back().receive_numel.resize(num_ranks);
      numel = 0;
    }
    auto& bucket = buckets_.back();
    bucket_of_[parameter] = buckets_.size() - 1;
    ++bucket.num_parameters;
    numel += held[parameter].numel();
    for (; unit > 0 && plan_.units[unit - 1].parameter == parameter; --unit) bucket.units.push_back(unit - 1);
  }
  for (auto& bucket : buckets_)
    for (const size_t number : bucket.units) {
      const auto& each = plan_.units[number];
      if (each.owner != mesh_.rank() && plan_.contributes(each, mesh_.rank()))
        bucket.send_numel[static_cast<size_t>(each.owner)] += plan_.held_numel(each, mesh_.rank());
      if (each.owner != mesh_.rank()) continue;
      for (int64_t rank = 0; rank < mesh_.layout().num_ranks(); ++rank)
        if (rank != mesh_.rank() && plan_.contributes(each, rank))
          bucket.receive_numel[static_cast<size_t>(rank)] += plan_.held_numel(each, rank);
    }
}

at::Tensor UpdateExchange::part_of_weight(const UpdateUnit& unit, const at::Tensor& weight) const {
  const auto& spec = plan_.specs[unit.parameter];
  if (!spec.is_expert()) return weight;
  const auto& here = plan_.shards.ranks[static_cast<size_t>(mesh_.rank())][unit.parameter].axes[0];
  return weight.narrow(0, unit.experts.begin - here.begin, unit.experts.size());
}

at::Tensor UpdateExchange::part_of_unit(const UpdateUnit& unit, const at::Tensor& values, int64_t rank) const {
  const auto& spec = plan_.specs[unit.parameter];
  if (spec.tensor_axis < 0) return values;
  const auto& slice =
      plan_.shards.ranks[static_cast<size_t>(rank)][unit.parameter].axes[static_cast<size_t>(spec.tensor_axis)];
  return values.narrow(spec.tensor_axis, slice.begin, slice.size());
}

bool UpdateExchange::is_whole(const UpdateUnit& unit) const {
  return plan_.specs[unit.parameter].tensor_axis < 0 || mesh_.layout().tensor == 1;
}

std::vector<int64_t> UpdateExchange::part_shape(const UpdateUnit& unit, int64_t rank) const {
  auto shape = plan_.shards.ranks[static_cast<size_t>(rank)][unit.parameter].shape();
  if (plan_.specs[unit.parameter].is_expert()) shape[0] = unit.experts.size();
  return shape;
}

at::Tensor UpdateExchange::gradient_of(const UpdateUnit& unit) const {
  const auto& gradient = gradients_[unit.parameter];
  if (gradient.defined()) return part_of_weight(unit, gradient);
  return at::zeros(part_shape(unit, mesh_.rank()), f32());
}

void UpdateExchange::start(Bucket& bucket) {
  const c10::NoGradGuard no_grad;
  int64_t to_send = 0;
  for (const int64_t numel : bucket.send_numel) to_send += numel;
  bucket.sent = mesh_.world()->room_to_send(to_send, at::kFloat);
  int64_t place = 0;
  for (int64_t rank = 0; rank < mesh_.layout().num_ranks(); ++rank) {
    if (rank == mesh_.rank()) continue;
    for (const size_t number : bucket.units) {
      const auto& unit = plan_.units[number];
      if (unit.owner != rank || !plan_.contributes(unit, mesh_.rank())) continue;
      const auto part = gradient_of(unit);
      bucket.sent.narrow(0, place, part.numel()).view(part.sizes()).copy_(part);
      place += part.numel();
    }
  }
  bucket.received = mesh_.world()->start_exchange(bucket.sent, bucket.receive_numel, bucket.send_numel);
  bucket.is_started = true;
}

void UpdateExchange::ready(size_t parameter, const at::Tensor& gradient) {
  if (mesh_.world() == nullptr) return;
  gradients_[parameter] = gradient;
  ++buckets_[bucket_of_[parameter]].num_ready;
  for (; next_bucket_ < buckets_.size() && buckets_[next_bucket_].num_ready == buckets_[next_bucket_].num_parameters;
       ++next_bucket_)
    start(buckets_[next_bucket_]);
}

// Adds what ranks sent to the own units of a bucket, rank by rank, this one in its place. The own gradient may become
// the sum, as nobody reads it after this; what others sent is theirs.
void UpdateExchange::add_received(Bucket& bucket, std::vector<at::Tensor>& sums) const {
  const auto& received = bucket.received.wait();
  std::vector<bool> is_borrowed(sums.size());
  for (int64_t rank = 0; rank < mesh_.layout().num_ranks(); ++rank) {
    int64_t place = 0;
    for (const size_t number : bucket.units) {
      const auto& unit = plan_.units[number];
      if (unit.owner != mesh_.rank() || !plan_.contributes(unit, rank)) continue;
      const size_t own = own_index_[number];
      auto& sum = sums[own];
      const bool is_own = rank == mesh_.rank();
      const int64_t numel = plan_.held_numel(unit, rank);
      const auto part = is_own
                            ? gradient_of(unit)
                            : received[static_cast<size_t>(rank)].narrow(0, place, numel).view(part_shape(unit, rank));
      if (!is_own) place += numel;
      if (!is_whole(unit)) {
        if (!sum.defined()) sum = at::zeros(unit_shape(plan_.specs[unit.parameter], unit), f32());
        part_of_unit(unit, sum, rank).add_(part);
      } else if (!sum.defined()) {
        sum = part;
        is_borrowed[own] = !is_own;
      } else if (is_borrowed[own]) {
        sum = is_own ? part.add_(sum) : at::add(sum, part);
        is_borrowed[own] = false;
      } else {
        sum.add_(part);
      }
    }
  }
  for (size_t own = 0; own < sums.size(); ++own)
    if (is_borrowed[own]) sums[own] = sums[own].clone();
  bucket.sent.reset();
  bucket.received = {};
  bucket.is_started = false;
  bucket.num_ready = 0;
}

std::vector<at::Tensor> UpdateExchange::sum_gradients(const std::vector<at::Tensor>& gradients) {
  const c10::NoGradGuard no_grad;
  gradients_ = gradients;
  std::vector<at::Tensor> sums(own_.size());
  if (mesh_.world() == nullptr) {
    for (size_t unit = 0; unit < own_.size(); ++unit) sums[unit] = gradients[own_[unit].parameter];
  } else {
    for (auto& bucket : buckets_)
      if (!bucket.is_started) start(bucket);
    for (auto& bucket : buckets_) add_received(bucket, sums);
  }
  gradients_.assign(gradients.size(), {});
  next_bucket_ = 0;
  return sums;
}

namespace {

// Values of several dtypes travel as pairs of bytes.
constexpr auto kPairs = at::kBFloat16;

// An even number, so that f32 values stay aligned.
int64_t num_pairs(int64_t numel, at::ScalarType dtype) { return dtype == at::kFloat ? 2 * numel : (numel + 1) / 2 * 2; }

// The values of a part at `place` of a buffer.
at::Tensor values_at(const at::Tensor& buffer, int64_t place, const at::Tensor& part, at::ScalarType dtype) {
  const int64_t pairs = dtype == at::kFloat ? 2 * part.numel() : part.numel();
  return buffer.narrow(0, place, pairs).view(dtype).view(part.sizes());
}

}  // namespace

PendingParts UpdateExchange::send_values(const Bucket& bucket, const std::vector<at::Tensor>& values,
                                         const std::vector<at::Tensor>& weights,
                                         const std::vector<at::ScalarType>& dtypes) const {
  const int64_t num_ranks = mesh_.layout().num_ranks();
  std::vector<int64_t> send(static_cast<size_t>(num_ranks)), receive(static_cast<size_t>(num_ranks));
  int64_t to_send = 0;
  for (const size_t number : bucket.units) {
    const auto& unit = plan_.units[number];
    const auto pairs = [&](int64_t rank) { return num_pairs(plan_.held_numel(unit, rank), dtypes[unit.parameter]); };
    if (unit.owner != mesh_.rank()) {
      receive[static_cast<size_t>(unit.owner)] += pairs(mesh_.rank());
      continue;
    }
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      if (rank == mesh_.rank()) continue;
      send[static_cast<size_t>(rank)] += pairs(rank);
      to_send += pairs(rank);
    }
  }
  const auto sent = mesh_.world()->room_to_send(to_send, kPairs);
  int64_t place = 0;
  for (int64_t rank = 0; rank < num_ranks; ++rank)
    for (const size_t number : bucket.units) {
      const auto& unit = plan_.units[number];
      if (unit.owner != mesh_.rank() || !plan_.is_held(unit, rank)) continue;
      const auto part = part_of_unit(unit, values[own_index_[number]], rank);
      if (rank == mesh_.rank()) {
        if (!is_whole(unit)) part_of_weight(unit, weights[unit.parameter]).copy_(part);
        continue;
      }
      values_at(sent, place, part, dtypes[unit.parameter]).copy_(part);
      place += num_pairs(part.numel(), dtypes[unit.parameter]);
    }
  return mesh_.world()->start_exchange(sent, receive, send);
}

void UpdateExchange::share_values(const std::vector<at::Tensor>& values, const std::vector<at::Tensor>& weights,
                                  const std::vector<at::ScalarType>& dtypes) const {
  if (mesh_.world() == nullptr) return;
  const c10::NoGradGuard no_grad;
  std::vector<PendingParts> journeys;
  for (const auto& bucket : buckets_) journeys.push_back(send_values(bucket, values, weights, dtypes));
  for (size_t n = 0; n < buckets_.size(); ++n) {
    const auto& received = journeys[n].wait();
    for (int64_t rank = 0; rank < mesh_.layout().num_ranks(); ++rank) {
      int64_t place = 0;
      for (const size_t number : buckets_[n].units) {
        const auto& unit = plan_.units[number];
        if (rank == mesh_.rank() || unit.owner != rank || !plan_.is_held(unit, mesh_.rank())) continue;
        auto part = part_of_weight(unit, weights[unit.parameter]);
        part.copy_(values_at(received[static_cast<size_t>(rank)], place, part, dtypes[unit.parameter]));
        place += num_pairs(part.numel(), dtypes[unit.parameter]);
      }
    }
    journeys[n] = {};
  }
}

}  // namespace switchyard
