#include "native/model.h"

#include <ATen/core/grad_mode.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <span>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/tokenizer_files.h"
#include "cli/compute_options.h"
#include "cli/model_vocabulary.h"
#include "generate/prompt.h"
#include "generate/score.h"
#include "model/loss.h"
#include "native/bindings.h"
#include "native/json_objects.h"
#include "native/tensors.h"
#include "serve/inquiries.h"

namespace nb = nanobind;

namespace switchyard {
namespace {

using Ids = std::vector<int32_t>;

// Hidden states of each prompt, [length, d_model]; padding at its end has none.
std::vector<at::Tensor> encode_each(PythonModel& self, const std::vector<Ids>& prompts) {
  const std::lock_guard lock(self.mutex);
  const auto& config = self.model.config;
  const auto& weights = self.model.weights;
  for (const auto& ids : prompts) check_prompt(ids, config.vocab_size);
  std::vector<at::Tensor> states;
  for (const auto& encoded : encode_prompts(config, weights, {prompts.begin(), prompts.end()}))
    states.push_back(encoded.hidden.select(0, 0));
  return states;
}

void check_table(const at::Tensor& ids, int64_t rows, int64_t vocab_size, const char* what) {
  if (!ids.defined()) return;
  SY_CHECK(ids.numel() > 0, what, " has shape ", ids.sizes(), ": expected at least one row and one token");
  SY_CHECK(ids.size(0) == rows, what, ": ", ids.size(0), " rows, but ids has ", rows);
  const auto least = ids.min().item<int64_t>(), most = ids.max().item<int64_t>();
  SY_CHECK(least >= 0 && most < vocab_size, what, ": ids must lie in [0, ", vocab_size, "), got ", least, " to ", most);
}

at::Tensor mask_of(const at::Tensor& mask, const at::Tensor& ids, const char* what) {
  if (!mask.defined()) return {};
  SY_CHECK(ids.defined() && mask.sizes() == ids.sizes(), what, " has shape ", mask.sizes(), ", its ids ",
           ids.defined() ? ids.sizes() : at::IntArrayRef{});
  return mask.ne(0);
}

struct Pass {
  StackOutput encoder, decoder;
  at::Tensor logits, loss;
};

Pass pass(PythonModel& self, LossInput input) {
  const std::lock_guard lock(self.mutex);
  const at::NoGradGuard no_grad;
  const auto& config = self.model.config;
  const auto& weights = self.model.weights;
  const int64_t rows = input.encoder.ids.size(0);
  check_table(input.encoder.ids, rows, config.vocab_size, "ids");
  if (input.labels.defined() && !input.decoder.ids.defined()) input.decoder.ids = shift_right(input.labels);
  check_table(input.decoder.ids, rows, config.vocab_size, "decoder_ids");
  input.encoder.mask = mask_of(input.encoder.mask, input.encoder.ids, "mask");
  input.decoder.mask = mask_of(input.decoder.mask, input.decoder.ids, "decoder_mask");
  Pass result;
  if (input.labels.defined()) {
    SY_CHECK(input.labels.sizes() == input.decoder.ids.sizes(), "labels has shape ", input.labels.sizes(),
             ", decoder_ids ", input.decoder.ids.sizes());
    SY_CHECK(input.labels.max().item<int64_t>() < config.vocab_size, "labels: ids must lie below ", config.vocab_size);
    auto loss = compute_loss(config, weights, input, {}, {});
    result = {std::move(loss.encoder), std::move(loss.decoder), {}, loss.cross_entropy};
  } else {
    result.encoder = encode(config, weights, input.encoder, {});
    if (input.decoder.ids.defined())
      result.decoder = decode(config, weights, input.decoder, result.encoder.hidden, input.encoder, {});
  }
  if (result.decoder.hidden.defined()) result.logits = output_logits(weights, result.decoder.hidden);
  return result;
}

void add_layers(const StackOutput& stack, int64_t rows, nb::dict& router_logits, nb::dict& experts) {
  for (const auto& layer : stack.sparse_layers) {
    const auto name = to_python(layer.name);
    router_logits[name] = to_torch(layer.router_logits.view({rows, -1, layer.router_logits.size(1)}));
    experts[name] = to_torch(layer.routing.expert_index.view({rows, -1}));
  }
}

nb::dict forward(PythonModel& self, const IdTable& ids, const std::optional<IdTable>& mask,
                 const std::optional<IdTable>& decoder_ids, const std::optional<IdTable>& decoder_mask,
                 const std::optional<IdTable>& labels) {
  const auto device = self.model.weights.output.device();
  LossInput input;
  input.encoder = {.ids = to_tensor(ids, device), .mask = to_tensor(mask, device)};
  input.decoder = {.ids = to_tensor(decoder_ids, device), .mask = to_tensor(decoder_mask, device)};
  input.labels = to_tensor(labels, device);
  Pass done;
  {
    const nb::gil_scoped_release release;
    done = pass(self, std::move(input));
  }
  nb::dict result, router_logits, experts;
  const auto rows = static_cast<int64_t>(ids.shape(0));
  add_layers(done.encoder, rows, router_logits, experts);
  add_layers(done.decoder, rows, router_logits, experts);
  result["logits"] = to_torch(done.logits);
  result["loss"] = to_torch(done.loss);
  result["encoder_hidden"] = to_torch(done.encoder.hidden);
  result["decoder_hidden"] = to_torch(done.decoder.hidden);
  result["router_logits"] = router_logits;
  result["expert_index"] = experts;
  return result;
}

Json routing(PythonModel& self, const Ids& input, const Ids& output) {
  const std::lock_guard lock(self.mutex);
  SY_CHECK(self.model.config.has_sparse_layers(), self.folder.string(), ": the model is dense; it routes nothing");
  SY_CHECK(self.text() != nullptr, self.folder.string(), " has no vocabulary, by which routing names its tokens");
  return routing_json(self.model.config, self.model.weights, *self.text(), {input, output});
}

std::pair<double, std::vector<double>> score(PythonModel& self, const Ids& prompt, const Ids& target) {
  const std::lock_guard lock(self.mutex);
  const auto scored = score_targets(self.model.config, self.model.weights, prompt, {target}).at(0);
  return {scored.score, scored.token_log_probabilities};
}

}  // namespace

PythonModel::PythonModel(const std::filesystem::path& path, const std::string& dtype, const std::string& device)
    : folder(resolve_model_folder(path)),
      model(open_for_inference(folder, dtype_of(dtype), device_of({.device = device}))) {
  // A model without tokenizer files takes and gives ids.
  if (!read_vocabulary(folder).empty() || !read_tokenizer_file(folder).empty())
    vocabulary = open_vocabulary(folder, model.config);
}

void bind_model(nb::module_& module) {
  const auto release = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<PythonModel>(module, "Model")
      .def(nb::init<const std::filesystem::path&, const std::string&, const std::string&>(), nb::arg("path"),
           nb::arg("dtype"), nb::arg("device"), release)
      .def_prop_ro("folder", [](const PythonModel& self) { return self.folder; })
      .def_prop_ro("vocabulary", [](const PythonModel& self) { return self.vocabulary; })
      .def_prop_ro("config", [](const PythonModel& self) { return to_python(fields_to_json(self.model.config)); })
      .def(
          "encode",
          [](PythonModel& self, const std::vector<Ids>& prompts) {
            std::vector<at::Tensor> states;
            {
              const nb::gil_scoped_release unlocked;
              states = encode_each(self, prompts);
            }
            nb::list list;
            for (const auto& tensor : states) list.append(to_torch(tensor));
            return list;
          },
          nb::arg("prompts"))
      .def("forward", &forward, nb::arg("ids"), nb::arg("mask").none(), nb::arg("decoder_ids").none(),
           nb::arg("decoder_mask").none(), nb::arg("labels").none())
      .def(
          "score",
          [](PythonModel& self, const Ids& prompt, const Ids& target) {
            const nb::gil_scoped_release unlocked;
            return score(self, prompt, target);
          },
          nb::arg("prompt"), nb::arg("target"))
      .def(
          "routing",
          [](PythonModel& self, const Ids& input, const Ids& output) {
            Json json;
            {
              const nb::gil_scoped_release unlocked;
              json = routing(self, input, output);
            }
            return to_python(json);
          },
          nb::arg("input"), nb::arg("output"));
}

}  // namespace switchyard
