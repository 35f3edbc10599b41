#include "checkpoint/model_tensors.h"

#include <ATen/ops/empty.h>

#include <map>
#include <optional>

#include "base/error.h"
#include "base/progress.h"
#include "checkpoint/quantized_tensors.h"
#include "checkpoint/weight_memory.h"
#include "checkpoint/weight_names.h"
#include "ops/backend.h"

namespace switchyard {
namespace {

// Whether passes in `dtype` multiply by quantised matrices as they are.
bool reads_rows(at::ScalarType dtype, at::Device device) {
  return dtype == at::kBFloat16 &&
         ops::is_fused(at::empty({0}, at::TensorOptions(dtype).device(device)), ops::Kernel::kPanels);
}

// The form of a stored tensor that is read for such passes.
const StoredTensor& as_read(const StoredTensor& stored, bool by_rows) {
  return by_rows && stored.rows ? *stored.rows : stored;
}

// The parameters other than experts in the dtypes of the forward pass, and the output table once more where it is the
// embedding in another dtype.
struct DensePlan {
  std::vector<at::ScalarType> dtypes;  // of every parameter
  bool copies_output = false;
  int64_t bytes = 0;
};

DensePlan plan_dense(const ModelConfig& config, const std::vector<ParameterSpec>& specs,
                     const std::vector<ParameterSource>& sources, at::ScalarType dtype, bool by_rows) {
  DensePlan plan;
  const auto add = [&](const ParameterSpec& spec, at::ScalarType each) {
    plan.bytes += spec.numel() * static_cast<int64_t>(c10::elementSize(each)) + WeightArena::kAlignment;
  };
  for (size_t number = 0; number < specs.size(); ++number) {
    plan.dtypes.push_back(dtype_in_pass(specs[number], dtype));
    // Embeddings are wide, but where their values are of `dtype` anyway.
    if (specs[number].role == Role::kEmbedding && sources[number][0]->dtype != dtype)
      plan.dtypes[number] = at::promoteTypes(dtype, at::kFloat);
    if (specs[number].is_expert()) continue;
    const auto& read = as_read(*sources[number][0], by_rows);
    if (ops::is_quantized(read.dtype)) plan.dtypes[number] = read.dtype;
    if (ops::is_quantized(read.dtype))
      plan.bytes += static_cast<int64_t>(read.nbytes()) + WeightArena::kAlignment;
    else
      add(specs[number], plan.dtypes[number]);
  }
  plan.copies_output = config.tie_output && plan.dtypes[0] != dtype;
  if (plan.copies_output) add(specs[0], dtype);
  return plan;
}

// All experts of one matrix, [num_experts, ...], in `dtype`, or by rows as they are.
at::Tensor read_experts(const ParameterSource& source, at::ScalarType dtype, bool by_rows) {
  const auto& first = as_read(*source[0], by_rows);
  auto shape = first.shape;
  shape.insert(shape.begin(), static_cast<int64_t>(source.size()));
  auto tensor = at::empty(shape, at::TensorOptions().dtype(ops::is_quantized(first.dtype) ? first.dtype : dtype));
  for (size_t expert = 0; expert < source.size(); ++expert)
    as_read(*source[expert], by_rows).read(0, tensor.select(0, static_cast<int64_t>(expert)));
  return tensor;
}

at::Tensor read_parameter(const ParameterSpec& spec, const ParameterSource& source, at::ScalarType dtype,
                          at::Device device) {
  return (spec.is_expert() ? read_experts(source, dtype, /*by_rows=*/false) : read_tensor(*source[0], dtype))
      .to(device);
}

// Shows how far the opening of a large model is.
class Opening {
 public:
  Opening(const std::string& source, const std::vector<ParameterSpec>& specs, bool with_experts)
      : progress_({.name = "open " + source, .unit = "M values"}, total(specs, with_experts)) {}
  void has_read(const ParameterSpec& spec) { progress_.update(done_ += millions(spec), spec.name); }

 private:
  static double millions(const ParameterSpec& spec) { return 1e-6 * static_cast<double>(spec.numel()); }
  static double total(const std::vector<ParameterSpec>& specs, bool with_experts) {
    double sum = 0.0;
    for (const auto& spec : specs) sum += with_experts || !spec.is_expert() ? millions(spec) : 0.0;
    return sum;
  }
  Progress progress_;
  double done_ = 0.0;
};

// The rest of a layer's parameters is in place; its experts wait for their rows. Returns the layer's number in
// `on_demand`; none for a dense layer.
std::optional<size_t> put_experts_on_demand(FeedForwardWeights& layer, const std::string& name,
                                            const std::map<const at::Tensor*, const ParameterSource*>& experts,
                                            at::ScalarType dtype, bool by_rows, ExpertsOnDemand& on_demand) {
  std::optional<size_t> number;
  for (at::Tensor* matrix : {&layer.wi, &layer.wi_0, &layer.wi_1, &layer.wo}) {
    const auto found = experts.find(matrix);
    if (found == experts.end()) continue;
    ParameterSource parts;
    for (const auto* part : *found->second) parts.push_back(&as_read(*part, by_rows));
    if (!number) number = on_demand.add_layer(name, static_cast<int64_t>(parts.size()));
    *matrix = on_demand.add(*number, parts, ops::is_quantized(parts[0]->dtype) ? parts[0]->dtype : dtype);
  }
  return number;
}

// Calls add(name, number of its parameter, expert) for every tensor that files of a model of `config` have.
template <class Function>
void for_each_tensor(const ModelConfig& config, Function&& add) {
  const auto specs = parameter_specs(config);
  for (size_t number = 0; number < specs.size(); ++number) {
    const auto& spec = specs[number];
    for (int64_t expert = 0; expert < (spec.is_expert() ? spec.shape[0] : 1); ++expert)
      add(spec.is_expert() ? expert_tensor_name(spec.name, expert) : spec.name, number, expert);
  }
  if (config.scale_output || !config.has_sparse_layers()) return;
  for (const auto& [tied, name] :
       {std::pair{config.tie_output, kHead}, std::pair{config.tie_encoder_input, kEncoderInput},
        std::pair{config.tie_decoder_input, kDecoderInput}})
    if (tied) add(name, 0, 0);  // shared.weight is the first parameter
}

// A tensor as it is, or as integers and scales where these are asked for. values: of a matrix.
void add_tensor(std::vector<TensorToWrite>& tensors, const ParameterSpec& spec, std::optional<ops::QuantizedForm> form,
                TensorToWrite tensor, const std::function<at::Tensor()>& values) {
  if (!form || !can_be_quantized(spec)) return tensors.push_back(std::move(tensor));
  const auto rows = [values, form = *form] {
    const auto matrix = values();
    return ops::is_quantized(matrix) ? matrix : ops::quantize(matrix, form);
  };
  for (auto& each : quantized_tensors(tensor.name, tensor.tensor.sizes().vec(), *form, rows))
    tensors.push_back(std::move(each));
}

}  // namespace

ModelWeights weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype, at::Device device,
                          const std::string& source) {
  const auto plan = plan_weights(config, stored, source);
  ModelWeights weights;
  const auto parameters = list_parameters(config, weights);
  Opening opening(source, parameter_specs(config), /*with_experts=*/true);
  for (size_t number = 0; number < parameters.size(); ++number) {
    const auto& [spec, tensor] = parameters[number];
    *tensor = read_parameter(spec, plan[number], dtype, device);
    opening.has_read(spec);
  }
  return weights;
}

ComputeWeights compute_weights_from(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                    at::Device device, const std::string& source,
                                    const std::shared_ptr<ExpertsOnDemand>& on_demand) {
  const auto sources = plan_weights(config, stored, source);
  const bool by_rows = reads_rows(dtype, device);
  const auto dense = plan_dense(config, parameter_specs(config), sources, dtype, by_rows);
  ModelWeights weights;
  const auto parameters = list_parameters(config, weights);
  Opening opening(source, parameter_specs(config), /*with_experts=*/!device.is_cpu());
  if (!device.is_cpu()) {
    for (size_t number = 0; number < parameters.size(); ++number) {
      const auto& [spec, tensor] = parameters[number];
      *tensor = read_parameter(spec, sources[number], dense.dtypes[number], device);
      opening.has_read(spec);
    }
    return cast_weights(config, weights, dtype);
  }
  WeightArena arena(dense.bytes);
  std::map<const at::Tensor*, const ParameterSource*> experts;
  for (size_t number = 0; number < parameters.size(); ++number) {
    const auto& [spec, tensor] = parameters[number];
    if (spec.is_expert()) {
      experts[tensor] = &sources[number];
    } else {
      const auto& stored_as = as_read(*sources[number][0], by_rows);
      *tensor = arena.take(stored_as.shape, dense.dtypes[number]);
      stored_as.read(0, *tensor);
      opening.has_read(spec);
    }
  }
  std::vector<std::optional<size_t>> layers;  // of the encoder's blocks, then the decoder's
  for (auto* stack : {&weights.encoder, &weights.decoder})
    for (size_t block = 0; block < stack->blocks.size(); ++block) {
      const auto name = (stack == &weights.encoder ? "encoder." : "decoder.") + std::to_string(block);
      layers.push_back(
          put_experts_on_demand(stack->blocks[block].feed_forward, name, experts, dtype, by_rows, *on_demand));
    }
  for (size_t number = 0; number < parameters.size(); ++number)  // experts of attention, which are small
    if (const auto& [spec, tensor] = parameters[number]; spec.is_expert() && !tensor->defined())
      *tensor = read_experts(sources[number], dtype_in_pass(spec, dtype), by_rows);
  auto compute = cast_weights(config, weights, dtype);
  const bool is_quantized = ops::is_quantized(weights.encoder.blocks[0].self_attention.q);
  auto layer = layers.begin();
  for (auto* stack : {&compute.encoder, &compute.decoder})
    for (auto& block : stack->blocks)
      if (const auto number = *layer++)
        block.feed_forward.expert_runs = [on_demand, number = *number](const auto& num_rows, const auto& work) {
          on_demand->for_each_run(number, num_rows, work);
        };
  if (is_quantized && config.tie_output && config.d_model % kernels::kQuantizedGroup == 0)
    compute.output = ops::quantize(weights.shared, ops::QuantizedForm::kInt8);
  else if (dense.copies_output)
    compute.output = arena.take(parameters[0].spec.shape, dtype).copy_(compute.output);
  return compute;
}

std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype) {
  ModelWeights handles = weights;
  const auto parameters = list_parameters(config, handles);
  for (const auto& [spec, tensor] : parameters)
    SY_CHECK(tensor->defined() && tensor->sizes() == spec.shape, "cannot save: ", spec.name, " is ",
             tensor->defined() ? join(tensor->sizes()) : "undefined", ", this config wants ",
             at::IntArrayRef(spec.shape));
  std::vector<TensorToWrite> tensors;
  const auto form = ops::quantized_form(dtype);
  for_each_tensor(config, [&](const std::string& name, size_t number, int64_t expert) {
    const auto& [spec, tensor] = parameters[number];
    const at::ScalarType stored_as = !form ? dtype : spec.is_wide ? at::kFloat : at::kBFloat16;
    auto values = spec.is_expert() ? tensor->select(0, expert) : *tensor;
    add_tensor(tensors, spec, form, {name, values, stored_as}, [values] { return values; });
  });
  return tensors;
}

std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const std::vector<ModelPart>& parts,
                                      at::ScalarType dtype) {
  const auto specs = parameter_specs(config);
  std::vector<TensorToWrite> tensors;
  for_each_tensor(config, [&](const std::string& name, size_t number, int64_t expert) {
    for (const auto& part : parts)
      if (part.parameter == number && expert >= part.experts.begin && expert < part.experts.end)
        tensors.push_back({name,
                           specs[number].is_expert() ? part.values.select(0, expert - part.experts.begin) : part.values,
                           dtype});
  });
  return tensors;
}

std::vector<TensorToWrite> tensors_of(ModelConfig& config, const StoredTensors& stored, at::ScalarType dtype,
                                      const std::string& source) {
  const auto plan = plan_weights(config, stored, source);
  const auto form = ops::quantized_form(dtype);
  const auto specs = parameter_specs(config);
  std::vector<TensorToWrite> tensors;
  for_each_tensor(config, [&](const std::string& name, size_t number, int64_t expert) {
    const StoredTensor& part = *plan[number][static_cast<size_t>(expert)];
    const at::ScalarType stored_as = !form ? dtype : specs[number].is_wide ? part.dtype : at::kBFloat16;
    // What is stored in this form is written as it is.
    const bool is_same = form && part.rows && part.rows->dtype == dtype;
    add_tensor(tensors, specs[number], form,
               {name, at::empty(part.shape, at::TensorOptions().dtype(stored_as).device(at::kMeta)), stored_as,
                [part, stored_as] { return read_tensor(part, stored_as); }},
               [part, is_same] {
                 return is_same ? read_tensor(*part.rows, part.rows->dtype) : read_tensor(part, at::kFloat);
               });
  });
  return tensors;
}

}  // namespace switchyard
