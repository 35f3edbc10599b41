#include "parallel/mesh.h"

#include <ATen/ops/empty.h>

#include <numeric>

#include "base/error.h"

namespace switchyard {

Mesh::Mesh(std::unique_ptr<ProcessGroup> world, const Layout& layout) : layout_(layout), world_(std::move(world)) {
  SY_CHECK(layout_.num_ranks() == world_->size(), "[parallel] data = ", layout_.data, ", expert = ", layout_.expert,
           ", tensor = ", layout_.tensor, " takes ", layout_.num_ranks(), " ranks, ", world_->size(),
           " were started; start as many, or set an axis to \"auto\"");
  const auto here = place();
  const auto group_along = [&](const char* name, int64_t size, auto&& rank_of) -> std::unique_ptr<ProcessGroup> {
    if (size == 1) return nullptr;
    std::vector<int64_t> ranks;
    for (int64_t n = 0; n < size; ++n) ranks.push_back(rank_of(n));
    return world_->subgroup(join(name, "-", ranks.front()), ranks);
  };
  experts_ = group_along("expert", layout_.expert, [&](int64_t n) {
    return rank_at(layout_, {here.data, n, here.tensor});
  });
  tensor_ = group_along("tensor", layout_.tensor, [&](int64_t n) {
    return rank_at(layout_, {here.data, here.expert, n});
  });
}

std::string Mesh::from_first(const std::string& name, const std::function<std::string()>& work) const {
  if (world_ == nullptr) return work();
  std::string result;
  if (is_first()) {
    try {
      result = "." + work();
    } catch (const Error& error) {
      result = std::string("!") + error.what();
    }
  }
  result = world_->gather_text(name, result).front();
  if (result.front() == '!') throw Error(result.substr(1));
  return result.substr(1);
}

bool Mesh::any(bool mine) const {
  if (world_ == nullptr) return mine;
  auto flag = at::empty({1}, at::kLong).fill_(mine ? 1 : 0);
  world_->all_reduce_max(flag);
  return *flag.const_data_ptr<int64_t>() != 0;
}

void Mesh::barrier() const {
  if (world_ != nullptr) world_->barrier();
}

Layout complete_layout(const AskedLayout& asked, int64_t num_ranks, int64_t num_experts) {
  Layout layout{.data = asked.data.value_or(1), .expert = asked.expert.value_or(1), .tensor = asked.tensor.value_or(1)};
  const auto left = [&] { return std::max<int64_t>(1, num_ranks / layout.num_ranks()); };
  if (!asked.expert && num_experts > 0) layout.expert = std::gcd(left(), num_experts);
  if (!asked.data) layout.data = left();
  const auto shown = [](const std::optional<int64_t>& axis) { return axis ? std::to_string(*axis) : "auto"; };
  SY_CHECK(layout.num_ranks() == num_ranks, "[parallel] data = ", shown(asked.data), ", expert = ", shown(asked.expert),
           ", tensor = ", shown(asked.tensor), " cannot be ", num_ranks, num_ranks == 1 ? " rank" : " ranks",
           "; expected axes whose product is the number of ranks",
           num_ranks == 1 ? ", which torchrun, mpirun or srun start (README)" : "");
  return layout;
}

}  // namespace switchyard
