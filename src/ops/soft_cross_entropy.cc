#include "ops/soft_cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "ops/cross_entropy.h"
#include "ops/product.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kBlockElements = int64_t{1} << 22;  // logits of a block: 16 MiB

struct SoftCrossEntropy : torch::autograd::Function<SoftCrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& weight,
                            const at::Tensor& labels, double scale, double temperature,
                            const TeacherProbabilities* probabilities) {
    const auto kept = at::nonzero(labels.cpu().ge(0)).squeeze(1);
    const auto wide = hidden.options().dtype(hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    const bool wants_hidden = hidden.requires_grad(), wants_weight = weight.requires_grad();
    auto sum = at::zeros({}, wide);
    auto grad_hidden = wants_hidden ? at::zeros(hidden.sizes(), wide) : at::Tensor();
    auto grad_weight = wants_weight ? at::zeros(weight.sizes(), wide) : at::Tensor();
    const int64_t block = std::max<int64_t>(16, kBlockElements / std::max<int64_t>(1, weight.size(0)));
    for (int64_t first = 0; first < kept.size(0); first += block) {
      const auto tokens = kept.narrow(0, first, std::min(block, kept.size(0) - first));
      const auto there = tokens.to(hidden.device());
      const auto rows = hidden.index_select(0, there);
      auto log_student = at::log_softmax(vocabulary_logits(rows, weight, scale / temperature), 1);
      const auto teacher = (*probabilities)(tokens);
      SY_CHECK(teacher.sizes() == log_student.sizes(), "a teacher's probabilities have shape ", teacher.sizes(),
               ", the student's logits ", log_student.sizes());
      sum -= log_student.mul(teacher).sum();
      if (!wants_hidden && !wants_weight) continue;
      const auto grad = log_student.exp_().sub_(teacher).mul_(scale / temperature).to(hidden.scalar_type());
      const std::vector<int64_t> num_rows = {rows.size(0)};
      if (wants_hidden) grad_hidden.index_copy_(0, there, product(grad, weight.unsqueeze(0), num_rows).to(wide));
      if (wants_weight) grad_weight += product_of_columns(grad, rows, num_rows).squeeze(0);
    }
    context->save_for_backward({grad_hidden, grad_weight});
    context->saved_data["dtype"] = static_cast<int64_t>(hidden.scalar_type());
    return sum;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    const auto scaled = [&](const at::Tensor& grad) { return grad.defined() ? (grad * grads[0]).to(dtype) : grad; };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor soft_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                              double scale, double temperature, const TeacherProbabilities& probabilities) {
  SY_CHECK(hidden.dim() == 2 && labels.dim() == 1 && labels.size(0) == hidden.size(0), "soft cross entropy: labels ",
           labels.sizes(), " for hidden states ", hidden.sizes());
  SY_CHECK(temperature > 0.0, "temperature ", temperature, ": expected more than 0");
  return SoftCrossEntropy::apply(hidden, weight, labels, scale, temperature, &probabilities);
}

}  // namespace switchyard::ops
