#include "checkpoint/inherit.h"

#include <ATen/core/Tensor.h>

#include <map>

#include "base/error.h"
#include "checkpoint/weight_names.h"

namespace switchyard {
namespace {

// HF calls a feed-forward network DenseReluDense in dense models and mlp in those that have a sparse layer.
std::string one_name(std::string name) {
  const std::string dense = ".DenseReluDense.";
  if (const auto at = name.find(dense); at != std::string::npos) name.replace(at, dense.size(), ".mlp.");
  return name;
}

bool is_inherited(const ParameterSpec& spec) { return !spec.is_expert() && !spec.is_router() && !spec.is_buffer(); }

}  // namespace

ModelConfig dense_twin(ModelConfig teacher) {
  teacher.sparse_layout = SparseLayout::kStep;
  teacher.encoder_sparse_step = teacher.decoder_sparse_step = 0;
  teacher.sparse_encoder_layers = teacher.sparse_decoder_layers = {};
  teacher.encoder_num_experts = teacher.decoder_num_experts = {};
  teacher.num_sparse_encoder_layers = teacher.num_sparse_decoder_layers = 0;
  teacher.encoder_attention_sparse_step = teacher.decoder_attention_sparse_step = 0;
  teacher.routing = {};
  return teacher;
}

int64_t inherit_weights(const ModelConfig& student, ModelWeights& weights, const ModelFiles& teacher) {
  ModelConfig config = teacher.config;
  const auto sources = plan_weights(config, teacher.tensors, teacher.folder);
  const auto specs = parameter_specs(config);
  std::map<std::string, const StoredTensor*> there;
  for (size_t n = 0; n < specs.size(); ++n)
    if (is_inherited(specs[n])) there[one_name(specs[n].name)] = sources[n].front();
  int64_t count = 0;
  for (const auto& [spec, tensor] : list_parameters(student, weights)) {
    const auto found = there.find(one_name(spec.name));
    if (!is_inherited(spec) || found == there.end()) continue;
    const auto& stored = *found->second;
    SY_CHECK(stored.shape == spec.shape, "the student's ", spec.name, " is ", at::IntArrayRef(spec.shape), ", that of ",
             teacher.folder, " ", at::IntArrayRef(stored.shape),
             "; leave the sizes out of [model], then they are the teacher's, or set distill.inherit = false");
    tensor->copy_(read_tensor(stored, tensor->scalar_type()));
    count += spec.numel();
  }
  return count;
}

}  // namespace switchyard
