// Layers cut along their width over the ranks of a tensor group (ops/feature_split.h has the interface): two
// all-reduces a layer, one of its output and one of its input's gradient.
#pragma once

#include "ops/feature_split.h"
#include "parallel/process_group.h"

namespace switchyard {

class RankSplit final : public ops::FeatureSplit {
 public:
  explicit RankSplit(const ProcessGroup& tensor) : tensor_(tensor) {}  // the group outlives the split

  at::Tensor to_parts(const at::Tensor& x) const override;
  at::Tensor sum_of_parts(const at::Tensor& x) const override;
  at::Tensor largest_of_parts(const at::Tensor& x) const override;
  int64_t first_here(int64_t size, int64_t unit) const override;

 private:
  const ProcessGroup& tensor_;
};

}  // namespace switchyard
