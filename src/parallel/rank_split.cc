#include "parallel/rank_split.h"

#include <torch/csrc/autograd/custom_function.h>

#include "parallel/shard_plan.h"

namespace switchyard {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// In f32 at least: a sum of bf16 would be rounded at every rank.
at::Tensor summed(const at::Tensor& x, const ProcessGroup& group) {
  const bool is_wide = x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble;
  const auto sum = is_wide ? x.contiguous().clone() : x.to(at::kFloat).contiguous();
  group.all_reduce(sum);
  return sum.to(x.scalar_type());
}

struct ToParts : torch::autograd::Function<ToParts> {
  struct Saved : torch::CustomClassHolder {
    explicit Saved(const ProcessGroup* group_) : group(group_) {}
    const ProcessGroup* group;
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const ProcessGroup* group) {
    context->saved_data["group"] = c10::IValue::make_capsule(c10::make_intrusive<Saved>(group));
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto capsule = context->saved_data["group"].toCapsule();
    return {summed(grads[0], *static_cast<const Saved&>(*capsule).group), at::Tensor()};
  }
};

struct SumOfParts : torch::autograd::Function<SumOfParts> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& x, const ProcessGroup* group) {
    return summed(x, *group);
  }
  static variable_list backward(AutogradContext*, const variable_list& grads) { return {grads[0], at::Tensor()}; }
};

}  // namespace

at::Tensor RankSplit::to_parts(const at::Tensor& x) const { return ToParts::apply(x, &tensor_); }

at::Tensor RankSplit::sum_of_parts(const at::Tensor& x) const { return SumOfParts::apply(x, &tensor_); }

at::Tensor RankSplit::largest_of_parts(const at::Tensor& x) const {
  auto largest = x.detach().contiguous().clone();
  tensor_.all_reduce_max(largest);
  return largest;
}

int64_t RankSplit::first_here(int64_t size, int64_t unit) const {
  return even_slice(size, tensor_.size(), tensor_.rank(), unit).begin;
}

}  // namespace switchyard
