#include "checkpoint/weight_names.h"

#include <set>

#include "base/error.h"

namespace switchyard {
namespace {

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

// Unties what the file has with values of its own, and ties what it does not have.
void reconcile_tables(ModelConfig& config, const StoredTensors& stored, Lookup& lookup) {
  const StoredTensor* shared = find_in(stored, kShared);
  const auto reconcile = [&](const char* name, bool& tied, bool tied_if_absent) {
    const StoredTensor* table = find_in(stored, name);
    if (table == nullptr)
      tied = tied || tied_if_absent;
    else if (tied && shared != nullptr && equal_values(*shared, *table))
      lookup.use(name);
    else
      tied = false;
  };
  // A sparse model may say that it has a head of its own, and is not believed without one; T5's family is tied then.
  reconcile(kHead, config.tie_output, !config.has_sparse_layers());
  reconcile(kEncoderInput, config.tie_encoder_input, true);
  reconcile(kDecoderInput, config.tie_decoder_input, true);
  lookup.use(kUnusedTable);
}

}  // namespace

std::vector<ParameterSource> plan_weights(ModelConfig& config, const StoredTensors& stored, const std::string& source) {
  Lookup lookup(stored, source);
  reconcile_tables(config, stored, lookup);
  std::vector<ParameterSource> plan;
  for (const auto& spec : parameter_specs(config)) {
    auto& parts = plan.emplace_back();
    if (spec.is_expert() && static_cast<uint64_t>(spec.shape[0]) > stored.size()) {
      lookup.miss_experts(spec);  // before a list of that length is made
    } else if (spec.is_expert()) {
      for (int64_t expert = 0; expert < spec.shape[0]; ++expert)
        parts.push_back(lookup.find(expert_tensor_name(spec.name, expert), at::IntArrayRef(spec.shape).slice(1)));
    } else {
      parts.push_back(lookup.find(spec.name, spec.shape));
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
