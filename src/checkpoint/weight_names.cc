#include "checkpoint/weight_names.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <cmath>
#include <set>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr char kHead[] = "lm_head.weight";
constexpr char kShared[] = "shared.weight";
constexpr const char* kInputTables[] = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
// A table that T5's first files hold and no T5 reads.
constexpr char kUnusedTable[] = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

// Lists the first few of possibly thousands of problems of one kind.
class ProblemList {
 public:
  explicit ProblemList(const char* title) : title_(title) {}
  void add(const std::string& problem) {
    if (count_ < 8) text_ += "\n  " + title_ + problem.substr(0, 240);
    ++count_;
  }
  std::string text() const {
    return count_ <= 8 ? text_ : text_ + join("\n  ", title_, "... and ", count_ - 8, " more");
  }
  int64_t count() const { return count_; }

 private:
  std::string title_, text_;
  int64_t count_ = 0;
};

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t axis = 0; axis < shape.size(); ++axis) text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
  return text + "]";
}

// Looks tensors up, and keeps account of what is wrong and what was used.
class Lookup {
 public:
  Lookup(const NamedTensors& stored, const std::string& source) : stored_(stored), source_(source) {}

  const at::Tensor* find(const std::string& name, at::IntArrayRef shape) {
    auto found = stored_.find(name);
    if (found == stored_.end()) found = stored_.find(other_name(name));
    if (found == stored_.end()) {
      missing_.add(name + " " + shape_text(shape));
      return nullptr;
    }
    used_.insert(found->first);
    if (found->second.sizes() != shape || !found->second.is_floating_point()) {
      wrong_.add(join(found->first, " is ", safetensors_dtype_name(found->second.scalar_type()), " ",
                      shape_text(found->second.sizes()), ", expected floating ", shape_text(shape)));
      return nullptr;
    }
    return &found->second;
  }
  void miss_experts(const ParameterSpec& spec) {
    missing_.add(join(expert_tensor_name(spec.name, 0), " and on: ", spec.shape[0], " experts expected, but there are ",
                      stored_.size(), " tensors in all"));
  }
  void use(const std::string& name) { used_.insert(name); }
  void refuse(const std::string& problem) { wrong_.add(problem); }
  void finish() {
    for (const auto& [name, tensor] : stored_)
      if (!used_.contains(name)) unknown_.add(name + " " + shape_text(tensor.sizes()));
    SY_CHECK(missing_.count() + wrong_.count() + unknown_.count() == 0, source_,
             ": the weights do not fit config.json (", missing_.count(), " missing, ", unknown_.count(), " unknown, ",
             wrong_.count(), " wrong)", missing_.text(), wrong_.text(), unknown_.text());
  }

 private:
  // A dense feed-forward layer under the name that the other architecture gives it.
  static std::string other_name(std::string name) {
    for (const auto& [from, to] : {std::pair{".mlp.", ".DenseReluDense."}, std::pair{".DenseReluDense.", ".mlp."}})
      if (const auto at = name.find(from); at != std::string::npos)
        return name.replace(at, std::string(from).size(), to);
    return name;
  }

  const NamedTensors& stored_;
  const std::string& source_;
  std::set<std::string> used_;
  ProblemList missing_{"missing: "}, wrong_{"wrong: "}, unknown_{"unknown: "};
};

const at::Tensor* find_in(const NamedTensors& stored, const char* name) {
  const auto found = stored.find(name);
  return found == stored.end() ? nullptr : &found->second;
}

bool same_table(const at::Tensor& left, const at::Tensor& right) {
  return left.sizes() == right.sizes() && left.scalar_type() == right.scalar_type() && at::equal(left, right);
}

// What the file's own head means: HF scales by the config's word, and takes the head from the file if it has another
// one than the embedding.
struct Head {
  bool from_shared = false;  // untied config without a head in the file: a copy of the embedding
  double scale = 1.0;        // folded into the head: the config scales hidden states, but the head is its own
};

Head reconcile_head(ModelConfig& config, const NamedTensors& stored, Lookup& lookup) {
  const at::Tensor* shared = find_in(stored, kShared);
  const at::Tensor* head = find_in(stored, kHead);
  const bool own_head = head != nullptr && (shared == nullptr || !same_table(*shared, *head));
  Head result;
  if (config.tie_output) {
    if (own_head) {
      result.scale = 1.0 / std::sqrt(static_cast<double>(config.d_model));
      config.tie_output = false;
    } else if (head != nullptr) {
      lookup.use(kHead);
    }
  } else if (head == nullptr && !config.has_sparse_layers()) {
    result.from_shared = true;
  }
  for (const char* name : kInputTables) {
    const at::Tensor* table = find_in(stored, name);
    if (table == nullptr) continue;
    lookup.use(name);
    if (shared != nullptr && !same_table(*shared, *table))
      lookup.refuse(join(name, " differs from ", kShared, "; encoder and decoder must share their input embedding"));
  }
  lookup.use(kUnusedTable);
  return result;
}

// Which stored tensors fill each parameter: one, or one an expert.
struct Plan {
  Head head;
  std::vector<std::vector<const at::Tensor*>> sources;
};

Plan make_plan(ModelConfig& config, const NamedTensors& stored, const std::string& source) {
  Lookup lookup(stored, source);
  Plan plan{reconcile_head(config, stored, lookup), {}};
  for (const auto& spec : parameter_specs(config)) {
    auto& parts = plan.sources.emplace_back();
    if (spec.is_expert && static_cast<uint64_t>(spec.shape[0]) > stored.size()) {
      lookup.miss_experts(spec);  // before a list of that length is made
    } else if (spec.is_expert) {
      for (int64_t expert = 0; expert < spec.shape[0]; ++expert)
        parts.push_back(lookup.find(expert_tensor_name(spec.name, expert), at::IntArrayRef(spec.shape).slice(1)));
    } else {
      parts.push_back(lookup.find(plan.head.from_shared && spec.name == kHead ? kShared : spec.name, spec.shape));
    }
  }
  lookup.finish();
  return plan;
}

}  // namespace

std::string expert_tensor_name(const std::string& parameter, int64_t expert) {
  const std::string module = ".experts.";
  const auto at = parameter.rfind(module);
  SY_CHECK(at != std::string::npos, "parameter ", parameter, " has no experts");
  return parameter.substr(0, at + module.size()) + "expert_" + std::to_string(expert) + "." +
         parameter.substr(at + module.size());
}

std::vector<TensorToWrite> tensors_of(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype) {
  std::vector<TensorToWrite> tensors;
  ModelWeights handles = weights;
  for (const auto& [spec, tensor] : list_parameters(config, handles)) {
    SY_CHECK(tensor->defined() && tensor->sizes() == spec.shape, "cannot save: ", spec.name, " is ",
             tensor->defined() ? shape_text(tensor->sizes()) : "undefined", ", this config wants ",
             shape_text(spec.shape));
    if (!spec.is_expert) {
      tensors.push_back({spec.name, *tensor, dtype});
      continue;
    }
    for (int64_t expert = 0; expert < spec.shape[0]; ++expert)
      tensors.push_back({expert_tensor_name(spec.name, expert), tensor->select(0, expert), dtype});
  }
  if (!config.tie_output && config.has_sparse_layers())
    for (const char* name : kInputTables) tensors.push_back({name, weights.shared, dtype});
  return tensors;
}

ModelWeights weights_from(ModelConfig& config, const NamedTensors& stored, at::ScalarType dtype,
                          const std::string& source) {
  const Plan plan = make_plan(config, stored, source);
  ModelWeights weights;
  const auto parameters = list_parameters(config, weights);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [spec, tensor] = parameters[i];
    const auto& parts = plan.sources[i];
    *tensor = at::empty(spec.shape, at::TensorOptions().dtype(dtype));
    for (size_t part = 0; part < parts.size(); ++part)
      (spec.is_expert ? tensor->select(0, static_cast<int64_t>(part)) : *tensor).copy_(*parts[part]);
    if (spec.name == kHead && plan.head.scale != 1.0) tensor->mul_(plan.head.scale);
  }
  return weights;
}

void check_weights(const ModelConfig& config, const NamedTensors& stored, const std::string& source) {
  ModelConfig reconciled = config;
  make_plan(reconciled, stored, source);
}

}  // namespace switchyard
