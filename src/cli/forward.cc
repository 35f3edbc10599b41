// switchyard forward: one pass over given ids, every intermediate result to a file, for comparison with other programs.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_names.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "model/loss.h"
#include "ops/backend.h"

namespace switchyard {
namespace {

struct ForwardCommand {
  std::string model, inputs, output;
  bool gradients = false, router_losses = false, train = false;
  int64_t seed = 0;
  ComputeOptions compute;
};

using Outputs = std::vector<TensorToWrite>;

void add(Outputs& out, const std::string& name, const at::Tensor& tensor) {
  out.push_back({name, tensor.detach(), tensor.scalar_type()});
}

// The tensor `name` as int64, or undefined if it is absent and optional.
at::Tensor ids_of(const SafetensorsFile& file, const std::string& path, const std::string& name, bool required) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end()) {
    SY_CHECK(!required, path, ": tensor ", name, " is missing");
    return {};
  }
  SY_CHECK(found->second.dim() == 2, path, ": ", name, " has shape ", found->second.sizes(),
           ", expected [batch, length]");
  return found->second.to(at::kLong).contiguous();
}

LossInput read_inputs(const std::string& path, int64_t vocab_size) {
  const auto file = read_safetensors(path);
  const auto mask_of = [&](const char* name) {
    const auto mask = ids_of(file, path, name, false);
    return mask.defined() ? mask.ne(0) : at::Tensor();
  };
  LossInput input;
  input.encoder.ids = ids_of(file, path, "input_ids", true);
  input.encoder.mask = mask_of("attention_mask");
  input.decoder.mask = mask_of("decoder_attention_mask");
  input.labels = ids_of(file, path, "labels", false);
  input.decoder.ids = ids_of(file, path, "decoder_input_ids", false);
  SY_CHECK(input.labels.defined() || input.decoder.ids.defined(), path, ": expected labels or decoder_input_ids");
  if (!input.decoder.ids.defined()) input.decoder.ids = shift_right(input.labels);
  for (const auto* ids : {&input.encoder.ids, &input.decoder.ids})
    SY_CHECK(ids->numel() > 0 && ids->min().item<int64_t>() >= 0 && ids->max().item<int64_t>() < vocab_size, path,
             ": ids must lie in [0, ", vocab_size, "), got up to ", ids->numel() > 0 ? ids->max().item<int64_t>() : -1);
  SY_CHECK(input.decoder.ids.size(0) == input.encoder.ids.size(0), path, ": ", input.encoder.ids.size(0),
           " encoder rows but ", input.decoder.ids.size(0), " decoder rows");
  return input;
}

// The largest number of experts that a token has; at least 1.
int64_t most_experts(const ops::Routing& routing, int64_t tokens) {
  std::vector<int64_t> count(static_cast<size_t>(tokens), 0);
  const auto token = routing.dispatch.token.contiguous();
  int64_t most = 1;
  for (int64_t row = 0; row < token.numel(); ++row)
    most = std::max(most, ++count[static_cast<size_t>(token.const_data_ptr<int64_t>()[row])]);
  return most;
}

// expert_index: [batch, length], or with several experts a token [batch, length, experts] by falling gate.
void add_layers(const StackOutput& stack, int64_t batch, Outputs& out) {
  for (const auto& layer : stack.sparse_layers) {
    add(out, "router_logits." + layer.name, layer.router_logits.view({batch, -1, layer.router_logits.size(1)}));
    const int64_t tokens = layer.router_logits.size(0), width = most_experts(layer.routing, tokens);
    const auto experts = ops::experts_of_tokens(layer.routing, tokens, width);
    add(out, "expert_index." + layer.name,
        width == 1 ? experts.view({batch, -1}) : experts.view({batch, tokens / batch, width}));
  }
}

// Under HF's names: experts one by one; zeros where nothing flowed (an expert that got no token).
void add_gradient(const NamedParameter& parameter, Outputs& out) {
  const auto& [spec, tensor] = parameter;
  const auto gradient = tensor->grad().defined() ? tensor->grad() : at::zeros_like(*tensor);
  if (!spec.is_expert()) return add(out, "grad." + spec.name, gradient);
  for (int64_t expert = 0; expert < gradient.size(0); ++expert)
    add(out, "grad." + expert_tensor_name(spec.name, expert), gradient[expert]);
}

// What the file says of how its numbers came about: products and attentions in fast kernels and in the plain form.
std::map<std::string, std::string> kernel_metadata() {
  const auto products = ops::kernel_choices(ops::Kernel::kPanels), attention = ops::kernel_choices(ops::Kernel::kTiles);
  return {{"format", "pt"},
          {"fused_products", std::to_string(products.fused)},
          {"plain_products", std::to_string(products.plain)},
          {"fused_attention", std::to_string(attention.fused)},
          {"plain_attention", std::to_string(attention.plain)}};
}

void run(const ForwardCommand& command) {
  apply(command.compute);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "fp32" : command.compute.dtype);
  const auto device = device_of(command.compute);
  const auto folder = resolve_model_folder(command.model);
  LoadedModel master;  // weights that gradients flow to
  std::vector<NamedParameter> parameters;
  InferenceModel model;
  if (command.gradients) {
    master = open_model(folder, dtype == at::kDouble ? at::kDouble : at::kFloat, device);
    parameters = list_parameters(master.config, master.weights);
    for (auto& parameter : parameters) parameter.tensor->requires_grad_(!parameter.spec.is_buffer());
    model = {master.config, cast_weights(master.config, master.weights, dtype)};
  } else {
    model = open_for_inference(folder, dtype, device);
  }
  const auto& weights = model.weights;
  auto input = read_inputs(command.inputs, model.config.vocab_size);
  for (auto* tensor : {&input.encoder.ids, &input.encoder.mask, &input.decoder.ids, &input.decoder.mask, &input.labels})
    if (tensor->defined()) *tensor = tensor->to(device);
  const ForwardOptions options{.training = command.train, .seed = static_cast<uint64_t>(command.seed)};
  const int64_t batch = input.encoder.ids.size(0);

  Outputs out;
  StackOutput encoder, decoder;
  if (input.labels.defined()) {
    const auto loss = compute_loss(model.config, weights, input, options, {.router_losses = command.router_losses});
    encoder = loss.encoder;
    decoder = loss.decoder;
    add(out, "loss", loss.cross_entropy.detach());
    if (command.gradients) {
      loss.total.backward();
      for (const auto& parameter : parameters)
        if (!parameter.spec.is_buffer()) add_gradient(parameter, out);
    }
  } else {
    SY_CHECK(!command.gradients, "--gradients needs labels in ", command.inputs);
    encoder = encode(model.config, weights, input.encoder, options);
    decoder = decode(model.config, weights, input.decoder, encoder.hidden, input.encoder, options);
  }
  add(out, "logits", output_logits(weights, decoder.hidden).detach());
  add(out, "encoder_last_hidden_state", encoder.hidden.detach());
  add_layers(encoder, batch, out);
  add_layers(decoder, batch, out);
  const at::NoGradGuard no_grad;
  const auto losses = router_losses(model.config.routing, encoder, decoder, batch);
  for (const auto& [name, loss] :
       {std::pair{"load_balance_loss", losses.load_balance}, std::pair{"router_z_loss", losses.router_z}})
    add(out, name, loss.defined() ? loss.detach() : at::zeros({}));
  write_safetensors(command.output, std::move(out), kernel_metadata());
}

}  // namespace

void add_forward(CLI::App& app) {
  auto command = std::make_shared<ForwardCommand>();
  auto* forward = app.add_subcommand("forward", "Run a model on given ids and write logits, routing and gradients");
  forward->add_option("--model", command->model, "model directory, or a run's folder for its newest checkpoint")
      ->required();
  forward
      ->add_option("--inputs", command->inputs,
                   "safetensors with input_ids, optional attention_mask, and labels or decoder_input_ids")
      ->required();
  forward->add_option("--output", command->output, "safetensors to write")->required();
  forward->add_flag("--gradients", command->gradients, "add grad.NAME of the loss for every parameter");
  forward->add_flag("--router-losses", command->router_losses, "differentiate the weighted balance and z losses too");
  forward->add_flag("--train", command->train, "training mode: dropout, jitter, training capacity");
  forward->add_option("--seed", command->seed, "of the noise in training mode")->capture_default_str();
  add_compute_options(*forward, command->compute);
  forward->footer(
      "Example: switchyard forward --model runs/mini --inputs in.safetensors --output out.safetensors --gradients");
  forward->callback([command] { run(*command); });
}

}  // namespace switchyard
