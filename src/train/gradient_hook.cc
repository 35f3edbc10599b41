#include "train/gradient_hook.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace switchyard {
namespace {

struct Hook : torch::autograd::PostAccumulateGradHook {
  explicit Hook(std::function<void()> call_) : call(std::move(call_)) {}
  void operator()(const at::Tensor&) override { call(); }
  std::function<void()> call;
};

}  // namespace

void when_gradient_is_made(const at::Tensor& parameter, std::function<void()> call) {
  torch::autograd::impl::set_post_acc_grad_hooks(parameter, std::make_unique<Hook>(std::move(call)));
}

}  // namespace switchyard
