#include "train/low_rank.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace switchyard {

bool takes_low_rank(const ParameterSpec& spec) {
  return (spec.role == Role::kAttention || spec.role == Role::kFeedForward) && !spec.is_expert() &&
         spec.shape.size() == 2;
}

LowRankUpdates::LowRankUpdates(const LowRankOptions& options, const std::vector<ParameterSpec>& specs,
                               std::vector<at::Tensor> matrices, uint64_t seed)
    : options_(options), matrices_(std::move(matrices)) {
  for (size_t n = 0; n < matrices_.size(); ++n) {
    names_.push_back(specs[n].name);
    matrices_[n] = matrices_[n].detach();
    const int64_t out = matrices_[n].size(0), in = matrices_[n].size(1);
    SY_CHECK(options.rank <= std::min(out, in), "train.lora_rank = ", options.rank, " is more than ", specs[n].name,
             " [", out, ", ", in, "] has");
    bases_.push_back(matrices_[n].clone());
    const ParameterSpec first{.name = specs[n].name + ".lora_A",
                              .shape = {options.rank, in},
                              .initializer = Initializer::kNormal,
                              .stddev = 1.0 / std::sqrt(3.0 * static_cast<double>(in))};
    a_.push_back(initial_values(first, seed, {0, 1}).to(matrices_[n].options()));
    b_.push_back(at::zeros({out, options.rank}, matrices_[n].options()));
  }
}

std::vector<OptimizedParameter> LowRankUpdates::parameters() const {
  std::vector<OptimizedParameter> list;
  for (size_t n = 0; n < names_.size(); ++n) {
    list.push_back({.name = names_[n] + ".lora_A", .tensor = a_[n]});
    list.push_back({.name = names_[n] + ".lora_B", .tensor = b_[n]});
  }
  return list;
}

std::vector<at::Tensor> LowRankUpdates::gradients(const std::vector<at::Tensor>& of_matrices) const {
  const double scale = options_.alpha / static_cast<double>(options_.rank);
  std::vector<at::Tensor> list;
  for (size_t n = 0; n < a_.size(); ++n) {
    const auto& gradient = of_matrices[n];
    list.push_back(gradient.defined() ? at::mm(b_[n].t(), gradient) * scale : gradient);
    list.push_back(gradient.defined() ? at::mm(gradient, a_[n].t()) * scale : gradient);
  }
  return list;
}

void LowRankUpdates::apply() const {
  const at::NoGradGuard no_grad;
  const double scale = options_.alpha / static_cast<double>(options_.rank);
  for (size_t n = 0; n < a_.size(); ++n) matrices_[n].copy_(at::addmm(bases_[n], b_[n], a_[n], 1.0, scale));
}

Adapters LowRankUpdates::adapters() const {
  Adapters adapters{.rank = options_.rank, .alpha = options_.alpha};
  for (size_t n = 0; n < a_.size(); ++n) adapters.pairs.push_back({names_[n], a_[n], b_[n]});
  return adapters;
}

void LowRankUpdates::load(const Adapters& adapters) {
  SY_CHECK(adapters.pairs.size() == a_.size() && adapters.rank == options_.rank, "the checkpoint adapts ",
           adapters.pairs.size(), " matrices with rank ", adapters.rank, ", the run ", a_.size(), " with rank ",
           options_.rank);
  for (size_t n = 0; n < a_.size(); ++n) {
    const auto found = std::find_if(adapters.pairs.begin(), adapters.pairs.end(),
                                    [&](const AdapterPair& pair) { return pair.matrix == names_[n]; });
    SY_CHECK(found != adapters.pairs.end() && found->a.sizes() == a_[n].sizes() && found->b.sizes() == b_[n].sizes(),
             "the checkpoint does not adapt ", names_[n], " as it is here");
    a_[n].copy_(found->a);
    b_[n].copy_(found->b);
  }
  apply();
}

}  // namespace switchyard
