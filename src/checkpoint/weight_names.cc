#include "checkpoint/weight_names.h"

#include <cmath>
#include <set>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr char kHead[] = "lm_head.weight";
constexpr char kShared[] = "shared.weight";
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
  Lookup(const StoredTensors& stored, const std::string& source) : stored_(stored), source_(source) {}

  const StoredTensor* find(const std::string& name, at::IntArrayRef shape) {
    auto found = stored_.find(name);
    if (found == stored_.end()) found = stored_.find(other_name(name));
    if (found == stored_.end()) {
      missing_.add(name + " " + shape_text(shape));
      return nullptr;
    }
    used_.insert(found->first);
    if (at::IntArrayRef(found->second.shape) != shape || !c10::isFloatingType(found->second.dtype)) {
      wrong_.add(join(found->first, " is ", safetensors_dtype_name(found->second.dtype), " ",
                      shape_text(found->second.shape), ", expected floating ", shape_text(shape)));
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
      if (!used_.contains(name)) unknown_.add(name + " " + shape_text(tensor.shape));
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

  const StoredTensors& stored_;
  const std::string& source_;
  std::set<std::string> used_;
  ProblemList missing_{"missing: "}, wrong_{"wrong: "}, unknown_{"unknown: "};
};

const StoredTensor* find_in(const StoredTensors& stored, const char* name) {
  const auto found = stored.find(name);
  return found == stored.end() ? nullptr : &found->second;
}

// What the file's own head means: HF scales by the config's word, and takes the head from the file if it has another
// one than the embedding.
struct Head {
  bool from_shared = false;  // untied config without a head in the file: a copy of the embedding
  double scale = 1.0;
};

Head reconcile_head(ModelConfig& config, const StoredTensors& stored, Lookup& lookup) {
  const StoredTensor* shared = find_in(stored, kShared);
  const StoredTensor* head = find_in(stored, kHead);
  const bool own_head = head != nullptr && (shared == nullptr || !equal_values(*shared, *head));
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
    const StoredTensor* table = find_in(stored, name);
    if (table == nullptr) continue;
    lookup.use(name);
    if (shared != nullptr && !equal_values(*shared, *table))
      lookup.refuse(join(name, " differs from ", kShared, "; encoder and decoder must share their input embedding"));
  }
  lookup.use(kUnusedTable);
  return result;
}

}  // namespace

std::vector<ParameterSource> plan_weights(ModelConfig& config, const StoredTensors& stored, const std::string& source) {
  Lookup lookup(stored, source);
  const Head head = reconcile_head(config, stored, lookup);
  std::vector<ParameterSource> plan;
  for (const auto& spec : parameter_specs(config)) {
    auto& [parts, scale] = plan.emplace_back();
    if (spec.name == kHead) scale = head.scale;
    if (spec.is_expert() && static_cast<uint64_t>(spec.shape[0]) > stored.size()) {
      lookup.miss_experts(spec);  // before a list of that length is made
    } else if (spec.is_expert()) {
      for (int64_t expert = 0; expert < spec.shape[0]; ++expert)
        parts.push_back(lookup.find(expert_tensor_name(spec.name, expert), at::IntArrayRef(spec.shape).slice(1)));
    } else {
      parts.push_back(lookup.find(head.from_shared && spec.name == kHead ? kShared : spec.name, spec.shape));
    }
  }
  lookup.finish();
  return plan;
}

std::string expert_tensor_name(const std::string& parameter, int64_t expert) {
  const std::string module = ".experts.";
  const auto at = parameter.rfind(module);
  SY_CHECK(at != std::string::npos, "parameter ", parameter, " has no experts");
  return parameter.substr(0, at + module.size()) + "expert_" + std::to_string(expert) + "." +
         parameter.substr(at + module.size());
}

}  // namespace switchyard
