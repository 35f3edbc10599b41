#include "ops/reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"

namespace switchyard::ops::reference {
namespace {

at::ScalarType wide(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

// The elementwise product of x and factors [broadcastable] f32, rounded once to x's dtype.
at::Tensor scaled_by(const at::Tensor& x, const at::Tensor& factors) {
  return (x.to(wide(x.scalar_type())) * factors).to(x.scalar_type());
}

// function(expert, first row, rows) of each expert's rows, one after the other.
template <class Function>
at::Tensor by_expert(const at::Tensor& rows, const Dispatch& dispatch, Function&& function) {
  const auto num_rows = dispatch.rows_by_expert();
  std::vector<at::Tensor> outputs;
  int64_t start = 0;
  for (size_t expert = 0; expert < num_rows.size(); ++expert) {
    outputs.push_back(function(static_cast<int64_t>(expert), start, rows.narrow(0, start, num_rows[expert])));
    start += num_rows[expert];
  }
  return at::cat(outputs);
}

}  // namespace

at::Tensor uniform_noise(const NoiseKey& key, int64_t first_row, int64_t rows, int64_t width, at::Device device) {
  auto noise = at::empty({rows, width}, at::kFloat);
  float* values = noise.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row) {
    NoiseStream stream(key, static_cast<uint64_t>(first_row + row));
    for (int64_t column = 0; column < width; ++column) *values++ = stream.uniform();
  }
  return noise.to(device);
}

at::Tensor uniform_noise_of(const NoiseKey& key, const at::Tensor& number, int64_t width, at::Device device) {
  const auto numbers = number.cpu();
  auto noise = at::empty({number.size(0), width}, at::kFloat);
  for (int64_t row = 0; row < number.size(0); ++row)
    noise.narrow(0, row, 1).copy_(uniform_noise(key, numbers.const_data_ptr<int64_t>()[row], 1, width));
  return noise.to(device);
}

at::Tensor dropout_factors(const at::Tensor& noise, double rate) {
  const auto rate_f32 = static_cast<float>(rate);
  return noise.ge(rate_f32).to(at::kFloat) * (1.0F / (1.0F - rate_f32));
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon, at::ScalarType out_dtype) {
  const auto mean_square = (x * x).mean(-1, /*keepdim=*/true);
  return (x * at::rsqrt(mean_square + epsilon) * scale).to(out_dtype);
}

at::Tensor add_residual(const at::Tensor& x, const at::Tensor& delta) { return x + delta.to(x.scalar_type()); }

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids) { return at::embedding(weight, ids); }

at::Tensor dropout(const at::Tensor& x, double rate, const NoiseKey& key, int64_t first_example, int64_t first_channel,
                   const at::Tensor& example) {
  if (rate == 0.0) return x;
  const auto factors_of = [&](int64_t first, int64_t count) {  // [count, channels]
    const auto noise = uniform_noise(key, first, count, first_channel + x.size(2), x.device());
    return dropout_factors(noise.narrow(1, first_channel, x.size(2)), rate);
  };
  if (!example.defined()) return scaled_by(x, factors_of(first_example, x.size(0)).unsqueeze(1));
  const int64_t first = example.min().item<int64_t>(), last = example.max().item<int64_t>();
  const auto rows = (example - first).reshape({-1});
  return scaled_by(x, factors_of(first, last - first + 1).index_select(0, rows).view(x.sizes()));
}

at::Tensor activation(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kGelu:
      return at::gelu(x, "none");
    case Activation::kGeluNew:
      return at::gelu(x, "tanh");
    case Activation::kSilu:
      break;
  }
  return at::silu(x);
}

at::Tensor feed_forward(const at::Tensor& x, const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                        const FeedForwardOptions& options) {
  auto hidden = activation(linear(x, wi), options.activation);
  if (wi_1.defined()) hidden = hidden * linear(x, wi_1);
  return linear(dropout(hidden, options.hidden_dropout_rate, options.key, options.first_example, options.first_feature,
                        options.example),
                wo);
}

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const RouterInputNoise& noise) {
  auto input = x.to(weight.scalar_type());
  if (noise.jitter > 0.0 || noise.dropout > 0.0) {
    const auto uniform = noise.number.defined()
                             ? uniform_noise_of(noise.key, noise.number, x.size(1), x.device())
                             : uniform_noise(noise.key, noise.first_token, x.size(0), x.size(1), x.device());
    const auto spread = static_cast<float>(noise.jitter);
    const auto factors =
        noise.dropout > 0.0 ? dropout_factors(uniform, noise.dropout) : uniform * (2.0F * spread) + (1.0F - spread);
    input = input * factors;
  }
  const auto logits = at::mm(input, weight.t());
  return bias.defined() ? logits + bias : logits;
}

at::Tensor dispatch_rows(const at::Tensor& x, const Dispatch& dispatch) {
  return x.index_select(0, dispatch.token.to(x.device()));
}

at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& gate, const Dispatch& dispatch, int64_t tokens) {
  const auto gated = rows.to(wide(rows.scalar_type())) * gate.unsqueeze(1);
  const auto sums = at::zeros({tokens, rows.size(1)}, gated.options());
  return sums.index_add(0, dispatch.token.to(rows.device()), gated).to(rows.scalar_type());
}

at::Tensor expert_rows(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& wi, const at::Tensor& wi_1,
                       const at::Tensor& wo, const ExpertsOptions& options) {
  at::Tensor factors;
  if (options.dropout_rate > 0.0)
    factors = dropout_factors(
        uniform_noise_of(options.key, dispatch.number, options.first_feature + wi.size(1), rows.device())
            .narrow(1, options.first_feature, wi.size(1)),
        options.dropout_rate);
  return by_expert(rows, dispatch, [&](int64_t expert, int64_t start, const at::Tensor& input) {
    auto hidden = activation(at::mm(input, wi.select(0, expert).t()), options.activation);
    if (wi_1.defined()) hidden = hidden * at::mm(input, wi_1.select(0, expert).t());
    if (factors.defined()) hidden = scaled_by(hidden, factors.narrow(0, start, input.size(0)));
    return at::mm(hidden, wo.select(0, expert).t());
  });
}

at::Tensor expert_rows_linear(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& weight) {
  return by_expert(rows, dispatch, [&](int64_t expert, int64_t, const at::Tensor& input) {
    return at::mm(input, weight.select(0, expert).t());
  });
}

at::Tensor vocabulary_logits(const at::Tensor& hidden, const at::Tensor& weight, double scale) {
  const auto dtype = wide(hidden.scalar_type());
  return at::mm(hidden.to(dtype), weight.to(dtype).t()) * scale;
}

namespace {

// Of each token: logsumexp of its logits, its label's logit, the largest logit. [tokens] each
struct TokenLogits {
  at::Tensor log_partition, label_logit, largest;
};

// Over the whole vocabulary, of which `part` is here. Differentiable, but for the largest.
TokenLogits token_logits(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, double scale,
                         const VocabularyPart& part) {
  const auto logits = vocabulary_logits(hidden, weight, scale);
  const auto local = labels.clamp_min(0) - part.first;
  const auto is_here = local.ge(0).logical_and(local.lt(weight.size(0)));
  const auto chosen = logits.gather(1, local.clamp(0, weight.size(0) - 1).unsqueeze(1)).squeeze(1);
  TokenLogits result{at::logsumexp(logits, 1), chosen, std::get<0>(logits.detach().max(1))};
  if (part.split == nullptr) return result;
  result.label_logit = part.split->sum_of_parts(at::where(is_here, chosen, at::zeros({}, logits.options())));
  result.largest = part.split->largest_of_parts(result.largest);
  const auto shift = part.split->largest_of_parts(result.log_partition.detach());
  result.log_partition = part.split->sum_of_parts((result.log_partition - shift).exp()).log() + shift;
  return result;
}

}  // namespace

CrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                  double scale, const VocabularyPart& part) {
  const auto logits = token_logits(hidden, weight, labels, scale, part);
  const auto& log_partition = logits.log_partition;
  const auto kept = labels.ge(0);
  const auto zero = at::zeros({}, log_partition.options());
  const auto terms = at::where(kept, log_partition - logits.label_logit, zero);
  return {.sum = terms.sum(),
          .z_sum = at::where(kept, log_partition * log_partition, zero).sum(),
          .num_labels = kept.sum().item<int64_t>(),
          .num_correct = logits.label_logit.ge(logits.largest).logical_and(kept).sum().item<int64_t>(),
          .token_losses = terms.detach()};
}

at::Tensor label_log_probabilities(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                   double scale, const VocabularyPart& part) {
  const auto logits = token_logits(hidden, weight, labels, scale, part);
  const auto chosen = logits.label_logit - logits.log_partition;
  return at::where(labels.ge(0), chosen, at::zeros({}, chosen.options()));
}

}  // namespace switchyard::ops::reference
