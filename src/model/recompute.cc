#include "model/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace switchyard {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Recomputed : torch::autograd::Function<Recomputed> {
  struct Saved : torch::CustomClassHolder {
    explicit Saved(PartOfPass run_) : run(std::move(run_)) {}
    PartOfPass run;
  };

  // Undefined outputs are left out: `is_defined` tells which are there.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& first, const at::Tensor& second,
                               const at::Tensor& third, const PartOfPass& run, std::vector<bool>& is_defined) {
    const variable_list inputs = {first, second, third};
    ctx->saved_data["part"] = c10::IValue::make_capsule(c10::make_intrusive<Saved>(run));
    ctx->save_for_backward(inputs);
    variable_list outputs;
    for (auto& output : run(inputs)) {
      is_defined.push_back(output.defined());
      if (output.defined()) outputs.push_back(std::move(output));
    }
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    variable_list inputs, wanted_of, wanted;
    for (const auto& input : ctx->get_saved_variables())
      inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    const auto capsule = ctx->saved_data["part"].toCapsule();
    {
      const at::AutoGradMode with_gradient(true);
      size_t number = 0;
      for (const auto& output : static_cast<const Saved&>(*capsule).run(inputs)) {
        if (!output.defined()) continue;
        const auto& gradient = gradients[number++];
        if (!gradient.defined() || !output.requires_grad()) continue;
        wanted_of.push_back(output);
        wanted.push_back(gradient);
      }
      torch::autograd::backward(wanted_of, wanted);
    }
    variable_list result;
    for (const auto& input : inputs) result.push_back(input.grad());
    result.resize(inputs.size() + 2);  // none for the function and its flags
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recomputed(const PartOfPass& run, const std::array<at::Tensor, 3>& inputs) {
  // Autograd's functions take no undefined tensors.
  auto given = inputs;
  std::array<bool, 3> is_given;
  for (size_t n = 0; n < inputs.size(); ++n) {
    is_given[n] = inputs[n].defined();
    if (!is_given[n]) given[n] = at::empty({0});
  }
  const PartOfPass part = [run, is_given](std::vector<at::Tensor> tensors) {
    for (size_t n = 0; n < tensors.size(); ++n)
      if (!is_given[n]) tensors[n] = at::Tensor();
    return run(tensors);
  };
  std::vector<bool> is_defined;
  const auto made = Recomputed::apply(given[0], given[1], given[2], part, is_defined);
  std::vector<at::Tensor> outputs;
  size_t next = 0;
  for (const bool defined : is_defined) outputs.push_back(defined ? made[next++] : at::Tensor());
  return outputs;
}

}  // namespace switchyard
