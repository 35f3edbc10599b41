#include "train/first_values.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/inherit.h"
#include "checkpoint/model_parts.h"

namespace switchyard {
namespace {

ParameterValues values_in(std::shared_ptr<const ParameterFiles> files) {
  return [files = std::move(files)](size_t parameter, Slice experts) {
    return files->read(parameter, experts, at::kFloat);
  };
}

ParameterValues inherited_values(const RunConfig& run, at::Device device) {
  auto weights = initialize(run.model, static_cast<uint64_t>(run.train.seed), device);
  inherit_weights(run.model, weights, open_files(resolve_model_folder(run.distill.teacher)));
  std::vector<at::Tensor> tensors;
  for (const auto& parameter : list_parameters(run.model, weights)) tensors.push_back(*parameter.tensor);
  return [tensors, specs = parameter_specs(run.model)](size_t parameter, Slice experts) {
    const auto& tensor = tensors[parameter];
    return specs[parameter].is_expert() ? tensor.narrow(0, experts.begin, experts.size()) : tensor;
  };
}

}  // namespace

ParameterValues first_values(const RunConfig& run, at::Device device) {
  if (!run.init.empty()) return values_in(std::make_shared<ParameterFiles>(resolve_model_folder(run.init)));
  if (!run.distill.teacher.empty() && run.distill.inherit) return inherited_values(run, device);
  return [specs = parameter_specs(run.model), seed = static_cast<uint64_t>(run.train.seed)](
             size_t parameter, Slice experts) { return initial_values(specs[parameter], seed, experts); };
}

ParameterValues checkpoint_values(const RunConfig& run, const std::filesystem::path& checkpoint,
                                  const std::filesystem::path& out) {
  auto files = std::make_shared<ParameterFiles>(checkpoint);
  // --allow-changes may have let settings of the model change: only its shapes must be those of the tensors.
  const auto stored = parameter_specs(files->config()), wanted = parameter_specs(run.model);
  const bool fits = std::equal(stored.begin(), stored.end(), wanted.begin(), wanted.end(),
                               [](const auto& a, const auto& b) { return a.name == b.name && a.shape == b.shape; });
  SY_CHECK(fits, checkpoint.string(), ": its tensors are not those of the run file's [model]; resume with ",
           (out / "run.toml").string(), ", or start a new run with init = \"", checkpoint.string(), "\"");
  return values_in(std::move(files));
}

std::string adapted_folder(const RunConfig& run) {
  return std::filesystem::absolute(resolve_model_folder(run.init)).lexically_normal().string();
}

Adapters checkpoint_adapters(const RunConfig& run, const std::filesystem::path& checkpoint) {
  auto adapters = read_adapters(checkpoint);
  SY_CHECK(adapters.base == adapted_folder(run), checkpoint.string(), " adapts ", adapters.base, ", model.init is ",
           adapted_folder(run), "; resume with init = \"", adapters.base, "\"");
  return adapters;
}

}  // namespace switchyard
