#include "checkpoint/experts_on_demand.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/weight_memory.h"

namespace switchyard {
namespace {

// Of one read. Small enough for all threads to share one expert, which is all that a decoded token wants of a layer.
constexpr int64_t kPieceBytes = int64_t{1} << 20;

}  // namespace

size_t ExpertsOnDemand::add_layer(const std::string& name, int64_t num_experts) {
  const std::lock_guard lock(mutex_);
  layers_.push_back({.name = name, .experts = std::vector<Expert>(static_cast<size_t>(num_experts)), .matrices = {}});
  return layers_.size() - 1;
}

at::Tensor ExpertsOnDemand::add(size_t layer_number, const std::vector<const StoredTensor*>& experts,
                                at::ScalarType dtype) {
  const std::lock_guard lock(mutex_);
  auto& layer = layers_.at(layer_number);
  SY_CHECK(experts.size() == layer.experts.size(), experts.size(), " experts, expected ", layer.experts.size());
  std::vector<int64_t> shape = experts[0]->shape;
  shape.insert(shape.begin(), static_cast<int64_t>(experts.size()));
  Matrices matrices{map_zeros(shape, dtype), {}};
  for (const StoredTensor* expert : experts) matrices.experts.push_back(*expert);
  layer.expert_bytes += static_cast<int64_t>(matrices.stacked.nbytes() / experts.size());
  SY_CHECK(!most_bytes_ || layer.expert_bytes <= *most_bytes_, "experts may take ", most_bytes_.value_or(0),
           " bytes of memory, and one of ", layer.name, " takes ", layer.expert_bytes,
           "; give them at least that, better what all chosen in a layer take");
  layer.matrices.push_back(std::move(matrices));
  return layer.matrices.back().stacked;
}

void ExpertsOnDemand::for_each_run(size_t layer, const std::vector<int64_t>& num_rows,
                                   const std::function<void(Slice run)>& work) {
  std::unique_lock lock(mutex_);
  const auto num_experts = static_cast<int64_t>(num_rows.size());
  SY_CHECK(num_rows.size() == layers_.at(layer).experts.size(), num_rows.size(), " row counts for ",
           layers_[layer].experts.size(), " experts");
  if (!most_bytes_) {
    bring(layer, num_rows, {0, num_experts});
    lock.unlock();
    return work({0, num_experts});
  }
  const int64_t most = *most_bytes_ / std::max<int64_t>(1, layers_[layer].expert_bytes);
  int64_t begin = 0, count = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    if (num_rows[static_cast<size_t>(expert)] == 0) continue;
    if (count++ < most) continue;
    bring(layer, num_rows, {begin, expert});
    work({begin, expert});
    begin = expert;
    count = 1;
  }
  bring(layer, num_rows, {begin, num_experts});
  work({begin, num_experts});
}

// Of the run's experts, those with rows.
void ExpertsOnDemand::bring(size_t layer_number, const std::vector<int64_t>& num_rows, Slice run) {
  auto& layer = layers_[layer_number];
  std::vector<size_t> missing;
  for (auto expert = static_cast<size_t>(run.begin); expert < static_cast<size_t>(run.end); ++expert) {
    if (num_rows[expert] == 0) continue;
    ++reads_.wanted;
    if (const auto& held = layer.experts[expert].held)
      by_use_.splice(by_use_.end(), by_use_, *held);
    else
      missing.push_back(expert);
  }
  if (missing.empty()) return;
  make_room(static_cast<int64_t>(missing.size()) * layer.expert_bytes);
  read_from_files(layer, missing);
  for (const size_t expert : missing)
    layer.experts[expert].held = by_use_.insert(by_use_.end(), {layer_number, expert});
  reads_.read += static_cast<int64_t>(missing.size());
  reads_.bytes += static_cast<int64_t>(missing.size()) * layer.expert_bytes;
  reads_.peak_bytes = std::max(reads_.peak_bytes, reads_.bytes);
}

// What is used at present is at the list's end, and fits with what is missing.
void ExpertsOnDemand::make_room(int64_t bytes) {
  while (most_bytes_ && reads_.bytes + bytes > *most_bytes_) {
    const auto [layer, expert] = by_use_.front();
    by_use_.pop_front();
    layers_[layer].experts[expert].held.reset();
    reads_.bytes -= layers_[layer].expert_bytes;
    for (const auto& each : layers_[layer].matrices) give_back(each.stacked.select(0, static_cast<int64_t>(expert)));
  }
}

void ExpertsOnDemand::read_from_files(Layer& layer, const std::vector<size_t>& missing) {
  struct Piece {
    const StoredTensor* from;
    at::Tensor to;
    int64_t first;
  };
  std::vector<Piece> pieces;
  for (const size_t expert : missing) {
    for (const auto& each : layer.matrices) {
      const auto matrix = each.stacked.select(0, static_cast<int64_t>(expert));
      if (!layer.experts[expert].was_read) prefer_huge_pages(matrix);  // once: it holds for later pages too
      const int64_t rows = matrix.size(0), row = matrix.numel() / rows;
      const int64_t step = std::max<int64_t>(1, kPieceBytes / (row * static_cast<int64_t>(matrix.element_size())));
      for (int64_t first = 0; first < rows; first += step)
        pieces.push_back({&each.experts[expert], matrix.narrow(0, first, std::min(step, rows - first)), first * row});
      reads_.bytes_read += static_cast<int64_t>(each.experts[expert].nbytes());
    }
    layer.experts[expert].was_read = true;
  }
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), /*grain_size=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const auto& piece = pieces[static_cast<size_t>(number)];
      piece.from->read(piece.first, piece.to);
    }
  });
}

ExpertReads ExpertsOnDemand::reads() const {
  const std::lock_guard lock(mutex_);
  return reads_;
}

}  // namespace switchyard
