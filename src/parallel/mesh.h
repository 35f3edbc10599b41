// The ranks of a run along three axes (data, expert, tensor), and the groups in which they talk.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "parallel/process_group.h"
#include "parallel/shard_plan.h"

namespace switchyard {

class Mesh {
 public:
  Mesh() = default;  // one rank, which talks to nobody

  // Every rank of the world at its place of the layout, which has as many. Groups are made where an axis is longer than
  // one; all ranks call it. Throws Error naming both numbers if they differ.
  Mesh(std::unique_ptr<ProcessGroup> world, const Layout& layout);

  const Layout& layout() const { return layout_; }
  int64_t rank() const { return world_ ? world_->rank() : 0; }
  RankPlace place() const { return place_of(layout_, rank()); }
  bool is_first() const { return rank() == 0; }

  // A batch is shared out over the data and the expert axis; ranks of a tensor group have the same part of it.
  int64_t num_batch_parts() const { return layout_.data * layout_.expert; }
  int64_t batch_part() const { return rank() / layout_.tensor; }

  // Null where there is nobody else.
  const ProcessGroup* world() const { return world_.get(); }
  const ProcessGroup* experts() const { return experts_.get(); }
  const ProcessGroup* tensor() const { return tensor_.get(); }

  // What `work` gives on the first rank, which alone runs it, on all; an Error that it throws there is thrown on all.
  std::string from_first(const std::string& name, const std::function<std::string()>& work) const;
  // Whether it is true on any rank.
  bool any(bool mine) const;
  void barrier() const;

 private:
  Layout layout_;
  std::unique_ptr<ProcessGroup> world_, experts_, tensor_;
};

// The layout of num_ranks that is asked for. What is not: tensor is 1, expert the largest divisor of the ranks that are
// left and of num_experts, data the rest. Throws Error naming the axes if their product is not num_ranks.
struct AskedLayout {
  std::optional<int64_t> data, expert, tensor;
};
Layout complete_layout(const AskedLayout& asked, int64_t num_ranks, int64_t num_experts);

}  // namespace switchyard
