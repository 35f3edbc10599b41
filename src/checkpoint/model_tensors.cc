#include "checkpoint/model_tensors.h"

#include <ATen/ops/empty.h>

#include <map>
#include <memory>

#include "base/error.h"
#include "checkpoint/experts_on_demand.h"
#include "checkpoint/weight_names.h"

namespace switchyard {
namespace {

// The model's scale enters in f32 at least, whatever the dtype read.
at::Tensor read_scaled(const ParameterSource& source, at::ScalarType dtype) {
  if (source.scale == 1.0) return read_tensor(*source.parts[0], dtype);
  return read_tensor(*source.parts[0], at::promoteTypes(dtype, at::kFloat)).mul_(source.scale).to(dtype);
}

// All experts of one matrix, [num_experts, ...].
at::Tensor read_experts(const ParameterSpec& spec, const ParameterSource& source, at::ScalarType dtype) {
  auto tensor = at::empty(spec.shape, at::TensorOptions().dtype(dtype));
  for (int64_t expert = 0; expert < spec.shape[0]; ++expert)
    source.parts[static_cast<size_t>(expert)]->read(0, tensor.select(0, expert));
  return tensor;
}

// The rest of a layer's parameters is in place; its experts wait for their rows.
void put_experts_on_demand(FeedForwardWeights& layer,
                           const std::map<const at::Tensor*, const ParameterSource*>& experts, at::ScalarType dtype) {
  std::shared_ptr<ExpertsOnDemand> on_demand;
  for (at::Tensor* matrix : {&layer.wi, &layer.wi_0, &layer.wi_1, &layer.wo}) {
    const auto found = experts.find(matrix);
    if (found == experts.end()) continue;
    const auto& parts = found->second->parts;
    if (!on_demand) on_demand = std::make_shared<ExpertsOnDemand>(static_cast<int64_t>(parts.size()));
    *matrix = on_demand->add(parts, dtype);
  }
  if (on_demand) layer.want_experts = [on_demand](const std::vector<int64_t>& num_rows) { on_demand->read(num_rows); };
}

// Calls add(name, tensor, is input embedding) for every tensor that files of a model of `config` have.
template <class Function>
void for_each_tensor(const ModelConfig& config, Function&& add) {
  const auto specs = parameter_specs(config);
  for (size_t number = 0; number < specs.size(); ++number) {
    const auto& spec = specs[number];
    for (int64_t expert = 0; expert < (spec.is_expert ? spec.shape[0] : 1); ++expert)
      add(spec.is_expert ? expert_tensor_name(spec.name, expert) : spec.name, number, expert);
  }
  if (!config.tie_output && config.has_sparse_layers())
    for (const char* name : kInputTables) add(name, 0, 0);  // shared.weight is the first parameter
}

}  // namespace

ModelWeights weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                          const std::string& source) {
  const auto plan = plan_weights(config, stored, source);
  ModelWeights weights;
  const auto parameters = list_parameters(config, weights);
  for (size_t number = 0; number < parameters.size(); ++number) {
    const auto& [spec, tensor] = parameters[number];
    *tensor = spec.is_expert ? read_experts(spec, plan[number], dtype) : read_scaled(plan[number], dtype);
  }
  return weights;
}

ComputeWeights compute_weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                    const std::string& source) {
  const auto plan = plan_weights(config, stored, source);
  ModelWeights weights;
  std::map<const at::Tensor*, const ParameterSource*> experts;
  const auto parameters = list_parameters(config, weights);
  for (size_t number = 0; number < parameters.size(); ++number) {
    const auto& [spec, tensor] = parameters[number];
    if (spec.is_expert) {
      experts[tensor] = &plan[number];
    } else if (tensor == &weights.shared) {
      // Stored in `dtype`, it would hold the same values wide.
      const bool is_exact = plan[number].parts[0]->dtype == dtype;
      *tensor = read_scaled(plan[number], is_exact ? dtype : at::promoteTypes(dtype, at::kFloat));
    } else {
      *tensor = read_scaled(plan[number], compute_dtype(spec, dtype));
    }
  }
  for (auto* stack : {&weights.encoder, &weights.decoder})
    for (auto& block : stack->blocks) put_experts_on_demand(block.feed_forward, experts, dtype);
  for (size_t number = 0; number < parameters.size(); ++number)  // experts of attention, which are small
    if (const auto& [spec, tensor] = parameters[number]; spec.is_expert && !tensor->defined())
      *tensor = read_experts(spec, plan[number], compute_dtype(spec, dtype));
  return cast_weights(config, weights, dtype);
}

std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype) {
  ModelWeights handles = weights;
  const auto parameters = list_parameters(config, handles);
  for (const auto& [spec, tensor] : parameters)
    SY_CHECK(tensor->defined() && tensor->sizes() == spec.shape, "cannot save: ", spec.name, " is ",
             tensor->defined() ? join(tensor->sizes()) : "undefined", ", this config wants ",
             at::IntArrayRef(spec.shape));
  std::vector<TensorToWrite> tensors;
  for_each_tensor(config, [&](const std::string& name, size_t number, int64_t expert) {
    const auto& [spec, tensor] = parameters[number];
    tensors.push_back({name, spec.is_expert ? tensor->select(0, expert) : *tensor, dtype});
  });
  return tensors;
}

std::vector<TensorToWrite> tensors_of(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                      const std::string& source) {
  const auto plan = plan_weights(config, stored, source);
  std::vector<TensorToWrite> tensors;
  for_each_tensor(config, [&](const std::string& name, size_t number, int64_t expert) {
    const StoredTensor& part = *plan[number].parts[static_cast<size_t>(expert)];
    tensors.push_back({name, at::empty(part.shape, at::TensorOptions().dtype(dtype).device(at::kMeta)), dtype,
                       [part, scale = plan[number].scale, dtype] {
                         return read_scaled({{&part}, scale}, dtype);
                       }});
  });
  return tensors;
}

}  // namespace switchyard
