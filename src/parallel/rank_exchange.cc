#include "parallel/rank_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "parallel/shard_plan.h"

namespace switchyard {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// How rows came from tokens to experts. Rows arrive by rank, within a rank by expert; experts want them by expert,
// within an expert by rank.
struct Journey : ops::RowRoute {
  const ProcessGroup* group = nullptr;
  std::vector<int64_t> sent, received;  // rows [rank]
  at::Tensor by_expert;                 // [rows here] i64: place among the received of each row of the experts' order
  at::Tensor by_rank;                   // its inverse

  at::Tensor to_experts(const at::Tensor& rows) const {
    auto arrived = at::empty({by_rank.size(0), rows.size(1)}, rows.options());
    group->all_to_all(arrived, rows.contiguous(), received, sent);
    return arrived.index_select(0, by_expert);
  }
  at::Tensor to_tokens(const at::Tensor& rows) const {
    auto arrived = at::empty({std::accumulate(sent.begin(), sent.end(), int64_t{0}), rows.size(1)}, rows.options());
    auto leaving = group->room_to_send(rows.numel(), rows.scalar_type()).view(rows.sizes());
    at::index_select_out(leaving, rows, 0, by_rank);
    group->all_to_all(arrived, leaving, sent, received);
    return arrived;
  }
};

// Backward, gradients go the way of the rows in the other direction.
struct Travel : torch::autograd::Function<Travel> {
  struct Saved : torch::CustomClassHolder {
    Saved(std::shared_ptr<const Journey> journey_, bool outward_) : journey(std::move(journey_)), outward(outward_) {}
    std::shared_ptr<const Journey> journey;
    bool outward;
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const std::shared_ptr<const Journey>& journey, bool outward) {
    context->saved_data["saved"] = c10::IValue::make_capsule(c10::make_intrusive<Saved>(journey, outward));
    return outward ? journey->to_experts(rows) : journey->to_tokens(rows);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto capsule = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*capsule);
    const auto& journey = *saved.journey;
    return {saved.outward ? journey.to_tokens(grads[0]) : journey.to_experts(grads[0]), at::Tensor(), at::Tensor()};
  }
};

// Rows of each expert on this rank, from each rank. counts [num_ranks][experts here]
at::Tensor exchange_counts(const ProcessGroup& group, const std::vector<int64_t>& num_rows, int64_t experts_here,
                           Journey& journey) {
  const auto num_experts = static_cast<int64_t>(num_rows.size());
  std::vector<int64_t> to_send, counts_sent;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    const auto share = expert_share(num_experts, group.size(), rank);
    // Where several ranks hold an expert, all rows of this rank go to the same one of them.
    const bool is_mine = share.ranks.begin + group.rank() % share.ranks.size() == rank;
    int64_t rows = 0;
    for (int64_t expert = share.experts.begin; expert < share.experts.end; ++expert) {
      to_send.push_back(is_mine ? num_rows[static_cast<size_t>(expert)] : 0);
      rows += to_send.back();
    }
    journey.sent.push_back(rows);
    counts_sent.push_back(share.experts.size());
  }
  auto counts = at::empty({group.size(), experts_here}, at::kLong);
  const auto in = at::empty({static_cast<int64_t>(to_send.size())}, at::kLong);
  std::copy(to_send.begin(), to_send.end(), in.mutable_data_ptr<int64_t>());
  group.all_to_all(counts.view({-1}), in, std::vector<int64_t>(static_cast<size_t>(group.size()), experts_here),
                   counts_sent);
  return counts;
}

// From counts: rows of each rank, and the two orders. Returns the experts' offsets, [experts here + 1] i64.
at::Tensor order_rows(const at::Tensor& counts, Journey& journey) {
  const int64_t num_ranks = counts.size(0), num_experts = counts.size(1);
  const auto* count = counts.const_data_ptr<int64_t>();
  std::vector<int64_t> first(static_cast<size_t>(num_ranks * num_experts));  // place of the first row of (rank, expert)
  int64_t total = 0;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t before = total;
    for (int64_t expert = 0; expert < num_experts; ++expert) {
      first[static_cast<size_t>(rank * num_experts + expert)] = total;
      total += count[rank * num_experts + expert];
    }
    journey.received.push_back(total - before);
  }
  auto offsets = at::empty({num_experts + 1}, at::kLong);
  journey.by_expert = at::empty({total}, at::kLong);
  journey.by_rank = at::empty({total}, at::kLong);
  auto* offset = offsets.mutable_data_ptr<int64_t>();
  auto* by_expert = journey.by_expert.mutable_data_ptr<int64_t>();
  auto* by_rank = journey.by_rank.mutable_data_ptr<int64_t>();
  int64_t place = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    offset[expert] = place;
    for (int64_t rank = 0; rank < num_ranks; ++rank)
      for (int64_t row = 0; row < count[rank * num_experts + expert]; ++row, ++place) {
        by_expert[place] = first[static_cast<size_t>(rank * num_experts + expert)] + row;
        by_rank[by_expert[place]] = place;
      }
  }
  offset[num_experts] = place;
  return offsets;
}

}  // namespace

ops::RowsAtExperts RankExchange::to_experts(const at::Tensor& rows, const ops::Dispatch& dispatch) const {
  const auto here = expert_share(dispatch.num_experts(), experts_.size(), experts_.rank()).experts;
  auto journey = std::make_shared<Journey>();
  journey->group = &experts_;
  const auto counts = exchange_counts(experts_, dispatch.rows_by_expert(), here.size(), *journey);
  ops::RowsAtExperts there;
  there.dispatch.offsets = order_rows(counts, *journey);
  there.dispatch.token = journey->by_expert;
  there.dispatch.number = carries_numbers_ ? journey->to_experts(dispatch.number.unsqueeze(1)).squeeze(1)
                                           : at::zeros({there.dispatch.token.size(0)}, at::kLong);
  there.rows = Travel::apply(rows, std::shared_ptr<const Journey>(journey), /*outward=*/true);
  there.route = std::move(journey);
  return there;
}

at::Tensor RankExchange::to_tokens(const at::Tensor& rows, const ops::RowsAtExperts& there) const {
  return Travel::apply(rows, std::static_pointer_cast<const Journey>(there.route), /*outward=*/false);
}

namespace {

// Which of all rows belong to this rank's experts.
struct OwnRows : ops::RowRoute {
  int64_t first = 0, total = 0;
};

}  // namespace

ops::RowsAtExperts SharedTokens::to_experts(const at::Tensor& rows, const ops::Dispatch& dispatch) const {
  const auto share = expert_share(dispatch.num_experts(), experts_.size(), experts_.rank());
  const auto offsets = dispatch.offsets.narrow(0, share.experts.begin, share.experts.size() + 1);
  auto own = std::make_shared<OwnRows>();
  own->first = offsets[0].item<int64_t>();
  own->total = rows.size(0);
  // Of ranks with the same expert the first one computes.
  const bool computes = share.ranks.begin == experts_.rank();
  const int64_t count = computes ? offsets[-1].item<int64_t>() - own->first : 0;
  ops::RowsAtExperts there;
  there.rows = rows.narrow(0, own->first, count);
  there.dispatch = {.token = dispatch.token.narrow(0, own->first, count),
                    .number = dispatch.number.narrow(0, own->first, count),
                    .offsets = computes ? offsets.sub(own->first) : at::zeros_like(offsets)};
  there.route = std::move(own);
  return there;
}

at::Tensor SharedTokens::to_tokens(const at::Tensor& rows, const ops::RowsAtExperts& there) const {
  const auto own = std::static_pointer_cast<const OwnRows>(there.route);
  auto all = at::zeros({own->total, rows.size(1)}, rows.options());
  all.narrow(0, own->first, rows.size(0)).copy_(rows);
  experts_.all_reduce(all);  // each row is computed by one rank; the others have zeros there
  return all;
}

}  // namespace switchyard
