// Gradients on their way to the ranks that update, and new values on their way back. With one rank nothing moves: an
// own unit's gradient and values are the parameter's.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "parallel/mesh.h"
#include "parallel/update_plan.h"

namespace switchyard {

class UpdateExchange {
 public:
  // specs: the model's parameters, in the order in which tensors are given; is_trained: whether each has a gradient.
  // What has none is owned, but never travels. The mesh outlives the exchange.
  UpdateExchange(const std::vector<ParameterSpec>& specs, const Mesh& mesh, std::vector<bool> is_trained);

  bool is_trained(size_t parameter) const { return is_trained_[parameter]; }
  const std::vector<bool>& is_trained() const { return is_trained_; }  // [parameter]

  const UpdatePlan& plan() const { return plan_; }
  const std::vector<UpdateUnit>& own() const { return own_; }  // what this rank updates

  // The sum over ranks of each own unit's gradient, added in the order of ranks. f32. gradients[parameter]: of this
  // rank's part, one an entry of the specs; undefined where nothing was computed, which counts as 0. Undefined for what
  // is not trained.
  //
  // Buckets of parameters go one after the other, the last parameters first. While a backward pass runs, ready() may
  // be told of each gradient once it is whole, in any order: a bucket starts when it and all before it are ready.
  void ready(size_t parameter, const at::Tensor& gradient);
  std::vector<at::Tensor> sum_gradients(const std::vector<at::Tensor>& gradients);

  // values[own unit] to every rank that holds a part of it, into weights[parameter], in the dtype (f32 or bf16) of
  // dtypes[parameter]. The owner keeps all bits where its part is the whole unit.
  void share_values(const std::vector<at::Tensor>& values, const std::vector<at::Tensor>& weights,
                    const std::vector<at::ScalarType>& dtypes) const;

  // This rank's part of an own unit within its part of the parameter, a view; and within the unit's values.
  at::Tensor part_of_weight(const UpdateUnit& unit, const at::Tensor& weight) const;
  at::Tensor part_of_unit(const UpdateUnit& unit, const at::Tensor& values, int64_t rank) const;
  // Whether that part is the whole unit, which then needs no values of its own.
  bool is_whole(const UpdateUnit& unit) const;

 private:
  // Parameters whose gradients travel together.
  struct Bucket {
    std::vector<size_t> units;  // of the plan
    size_t num_parameters = 0, num_ready = 0;
    std::vector<int64_t> send_numel, receive_numel;  // [rank]: of gradients
    at::Tensor sent;
    PendingParts received;
    bool is_started = false;
  };
  // Values of a bucket to their holders, as pairs of bytes.
  void start(Bucket& bucket);
  PendingParts send_values(const Bucket& bucket, const std::vector<at::Tensor>& values,
                           const std::vector<at::Tensor>& weights, const std::vector<at::ScalarType>& dtypes) const;
  void add_received(Bucket& bucket, std::vector<at::Tensor>& sums) const;
  std::vector<int64_t> part_shape(const UpdateUnit& unit, int64_t rank) const;
  at::Tensor gradient_of(const UpdateUnit& unit) const;

  const Mesh& mesh_;
  UpdatePlan plan_;
  std::vector<bool> is_trained_;  // [parameter]
  std::vector<UpdateUnit> own_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;      // [parameter]
  std::vector<size_t> own_index_;      // [unit of the plan]: place in own_, or the number of units
  std::vector<at::Tensor> gradients_;  // [parameter], as far as they are known
  size_t next_bucket_ = 0;
};

}  // namespace switchyard
