#include "cli/shared_model.h"

#include <fcntl.h>
#include <unistd.h>

#include <numeric>

#include "base/error.h"
#include "base/messages.h"
#include "checkpoint/model_parts.h"
#include "parallel/launch.h"
#include "parallel/rank_weights.h"

namespace switchyard {
namespace {

Layout layout_of(const ModelConfig& config, int64_t num_ranks) {
  const int64_t experts = config.has_sparse_layers() ? std::gcd(num_ranks, config.routing.num_experts) : 1;
  const Layout layout{.data = 1, .expert = experts, .tensor = num_ranks / experts};
  SY_CHECK(layout.tensor <= config.num_heads, num_ranks, " ranks for a model of ", config.num_heads, " heads",
           config.has_sparse_layers() ? join(" and ", config.routing.num_experts, " experts") : "",
           ": expert x tensor ranks would be ", layout.expert, " x ", layout.tensor, "; expected tensor to be at most ",
           config.num_heads);
  return layout;
}

void print_nothing() {
  set_message_sink(std::make_shared<NoMessages>());
  const int nowhere = ::open("/dev/null", O_WRONLY);
  if (nowhere < 0) return;
  ::dup2(nowhere, STDOUT_FILENO);
  ::close(nowhere);
}

// This rank's part of every parameter in the dtype in which a pass reads it.
ModelWeights read_parts(const ParameterFiles& files, const Mesh& mesh, at::ScalarType dtype, at::Device device) {
  ModelWeights weights;
  const auto parameters = list_parameters(files.config(), weights);
  const auto shards = shards_of(parameter_specs(files.config()), mesh.layout(), mesh.rank());
  for (size_t parameter = 0; parameter < parameters.size(); ++parameter) {
    const auto& [spec, tensor] = parameters[parameter];
    const auto each = spec.role == Role::kEmbedding ? at::promoteTypes(dtype, at::kFloat) : dtype_in_pass(spec, dtype);
    const auto experts = spec.is_expert() ? shards[parameter].axes[0] : Slice{0, 1};
    *tensor = part_of_width(spec, shards[parameter], files.read(parameter, experts, each)).to(device);
  }
  return weights;
}

}  // namespace

SharedModel open_shared_model(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device,
                              std::optional<int64_t> expert_memory) {
  const auto launch = launch_from_environment();
  SharedModel shared;
  if (!launch || launch->num_ranks == 1) {
    shared.mesh = std::make_unique<Mesh>();
    shared.model = open_for_inference(folder, dtype, device, expert_memory);
    return shared;
  }
  SY_CHECK(!expert_memory, "--expert-memory is for one process: ", launch->num_ranks,
           " ranks hold their parts of the model whole");
  const ParameterFiles files(folder);
  const auto layout = layout_of(files.config(), launch->num_ranks);
  shared.mesh = std::make_unique<Mesh>(ProcessGroup::connect(*launch, {.device = device}), layout);
  if (!shared.mesh->is_first()) print_nothing();
  shared.model.config = files.config();
  shared.model.weights = cast_weights(files.config(), read_parts(files, *shared.mesh, dtype, device), dtype);
  if (shared.mesh->experts() != nullptr) {
    shared.exchange = std::make_unique<SharedTokens>(*shared.mesh->experts());
    shared.model.weights.exchange = shared.exchange.get();
  }
  if (shared.mesh->tensor() != nullptr) {
    shared.split = std::make_unique<RankSplit>(*shared.mesh->tensor());
    shared.model.weights.split = shared.split.get();
  }
  return shared;
}

}  // namespace switchyard
