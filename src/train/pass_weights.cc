#include "train/pass_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <unordered_map>

#include "train/gradient_hook.h"

namespace switchyard {

PassWeights::PassWeights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype,
                         const std::vector<bool>& is_trained)
    : weights_(weights), is_trained_(is_trained) {
  const at::NoGradGuard no_grad;
  parameters_ = list_parameters(config, weights_);
  uses_.resize(parameters_.size());
  copies_.resize(parameters_.size());
  num_made_.resize(parameters_.size());
  std::unordered_map<const at::TensorImpl*, size_t> numbers;
  for (size_t n = 0; n < parameters_.size(); ++n) numbers[parameters_[n].tensor->unsafeGetTensorImpl()] = n;
  const auto number_of = [&](const at::Tensor& tensor) { return numbers.at(tensor.unsafeGetTensorImpl()); };

  const auto matrix = [&](const std::vector<at::Tensor>& parts, at::ScalarType wanted) {
    const auto& first = parts.front();
    if (parts.size() == 1 && first.scalar_type() == wanted) return leaves_[add_leaf({number_of(first)}, first)].values;
    auto shape = first.sizes().vec();
    const size_t row_axis = parts.size() == 1 ? 0 : shape.size() - 2;
    shape[row_axis] = 0;
    std::vector<size_t> parameters;
    for (const auto& part : parts) {
      shape[row_axis] += part.size(static_cast<int64_t>(row_axis));
      parameters.push_back(number_of(part));
    }
    return leaves_[add_leaf(parameters, at::empty(shape, first.options().dtype(wanted)))].values;
  };
  const auto dtype_of = [&](const at::Tensor& tensor) {
    return dtype_in_pass(parameters_[number_of(tensor)].spec, dtype);
  };
  // Tables are looked up as they are.
  for (size_t n = 0; n < parameters_.size(); ++n)
    if (parameters_[n].spec.role == Role::kEmbedding) add_leaf({n}, *parameters_[n].tensor);
  const auto& head = config.tie_output ? weights_.shared : weights_.lm_head;
  const bool is_read_itself = config.tie_output && head.scalar_type() == dtype;
  const auto output = is_read_itself ? head : matrix({head}, dtype);
  compute_ = arrange_weights(config, weights_, dtype, output, [&](const std::vector<at::Tensor>& parts) {
    return matrix(parts, dtype_of(parts.front()));
  });
  refresh();
}

size_t PassWeights::add_leaf(const std::vector<size_t>& parameters, const at::Tensor& values) {
  int64_t first_row = 0;
  for (const size_t parameter : parameters) {
    const auto& own = *parameters_[parameter].tensor;
    uses_[parameter].push_back({leaves_.size(), first_row});
    if (!values.is_same(own)) copies_[parameter] = rows(values, parameter, uses_[parameter].back());
    if (parameters.size() > 1) first_row += own.size(-2);
  }
  const bool gets_gradient =
      std::any_of(parameters.begin(), parameters.end(), [&](size_t n) { return is_trained_[n]; });
  values.requires_grad_(gets_gradient);
  leaves_.push_back({values, {}, parameters});
  return leaves_.size() - 1;
}

at::Tensor PassWeights::rows(const at::Tensor& matrix, size_t parameter, const Use& use) const {
  const auto& own = *parameters_[parameter].tensor;
  return matrix.sizes() == own.sizes() ? matrix.detach() : matrix.detach().narrow(-2, use.first_row, own.size(-2));
}

void PassWeights::refresh() {
  const at::NoGradGuard no_grad;
  for (size_t n = 0; n < parameters_.size(); ++n)
    if (copies_[n].defined()) copies_[n].copy_(*parameters_[n].tensor);
}

void PassWeights::sum_in_f32(std::function<void(size_t parameter)> call) {
  for (size_t number = 0; number < leaves_.size(); ++number) {
    if (!leaves_[number].values.requires_grad()) continue;
    when_gradient_is_made(leaves_[number].values, [this, call, number] {
      keep_sum(leaves_[number]);
      for (const size_t parameter : leaves_[number].parameters) {
        if (++num_made_[parameter] < uses_[parameter].size()) continue;
        num_made_[parameter] = 0;
        if (is_trained_[parameter]) call(parameter);
      }
    });
  }
}

void PassWeights::keep_sums() {
  for (auto& leaf : leaves_) keep_sum(leaf);
}

// Autograd adds up wider ones itself.
void PassWeights::keep_sum(Leaf& leaf) {
  const at::NoGradGuard no_grad;
  auto& last = leaf.values.mutable_grad();
  if (!last.defined() || last.scalar_type() != at::kBFloat16) return;
  if (leaf.sum.defined())
    leaf.sum.add_(last);
  else
    leaf.sum = last.to(at::kFloat);
  last = at::Tensor();
}

at::Tensor PassWeights::gradient(size_t parameter) {
  const at::NoGradGuard no_grad;
  at::Tensor total;
  for (const auto& use : uses_[parameter]) {
    auto& leaf = leaves_[use.leaf];
    if (leaf.sum.defined()) keep_sum(leaf);
    auto& gradient = leaf.sum.defined() ? leaf.sum : leaf.values.mutable_grad();
    if (!gradient.defined()) continue;
    if (!total.defined()) {
      total = rows(gradient, parameter, use);
    } else {  // of a table's look-ups, f32, and of its products
      total.add_(gradient);
      gradient = at::Tensor();
    }
  }
  return total;
}

std::vector<at::Tensor> PassWeights::take_gradients() {
  std::vector<at::Tensor> gradients;
  for (size_t n = 0; n < parameters_.size(); ++n) gradients.push_back(is_trained_[n] ? gradient(n) : at::Tensor());
  for (auto& leaf : leaves_) {
    leaf.values.mutable_grad() = at::Tensor();
    leaf.sum = at::Tensor();
  }
  return gradients;
}

}  // namespace switchyard
