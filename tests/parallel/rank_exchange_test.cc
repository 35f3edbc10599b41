#include "parallel/rank_exchange.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <numeric>

#include "ops/experts.h"
#include "parallel/shard_plan.h"
#include "testing/ranks.h"
#include "testing/tensors.h"

namespace switchyard {
namespace {

constexpr int64_t kModel = 64, kHidden = 128;

struct Work {
  int64_t num_experts, num_ranks;
  at::Tensor x, wi, wo, gate;     // of all ranks' tokens; gate as rows are listed, rank by rank
  std::vector<int64_t> num_rows;  // [rank * num_experts]
  int64_t tokens = 0;             // of a rank
};

// Values from a formula, so that every process has the same: sines of the position.
at::Tensor values(std::vector<int64_t> sizes, double step) {
  const int64_t numel = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  return (at::arange(numel, at::kDouble) * step).sin().to(at::kFloat).view(sizes);
}

// Uneven loads, some experts without a row of some ranks.
Work make_work(int64_t num_experts, int64_t num_ranks) {
  Work work{num_experts,
            num_ranks,
            {},
            values({num_experts, kHidden, kModel}, 0.7),
            values({num_experts, kModel, kHidden}, 0.3),
            {},
            {}};
  for (int64_t rank = 0; rank < num_ranks; ++rank)
    for (int64_t expert = 0; expert < num_experts; ++expert)
      work.num_rows.push_back((5 * rank + 3 * expert) % 4 == 1 ? 0 : 1 + (rank + 7 * expert) % 9);
  work.tokens = 9 * num_experts;
  work.x = values({num_ranks, work.tokens, kModel}, 0.9);
  work.gate = values({num_ranks, work.tokens}, 0.01) + 1.5;
  return work;
}

ops::Dispatch dispatch_of(const Work& work, int64_t rank) {
  const auto begin = work.num_rows.begin() + rank * work.num_experts;
  const std::vector<int64_t> rows(begin, begin + work.num_experts);
  const int64_t count = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  return ops::make_dispatch(at::arange(count, at::kLong).mul(7).remainder(work.tokens), rows, rank * work.tokens);
}

const ops::ExpertsOptions kNoise{.dropout_rate = 0.3, .key = {.seed = 5, .purpose = NoisePurpose::kExpertDropout}};

struct Result {
  at::Tensor y, grad_x, grad_wi, grad_wo;
};

Result run(const Work& work, int64_t rank, const at::Tensor& wi, const at::Tensor& wo,
           const ops::TokenExchange* exchange) {
  const auto x = work.x[rank].clone().requires_grad_(), up = wi.clone().requires_grad_(),
             down = wo.clone().requires_grad_();
  const auto dispatch = dispatch_of(work, rank);
  const auto gate = work.gate[rank].narrow(0, 0, dispatch.num_rows());
  const auto y = ops::experts_feed_forward(x, gate, dispatch, up, {}, down, kNoise, exchange);
  (y * y).sum().backward();
  return {y.detach(), x.grad(), up.grad(), down.grad()};
}

// Every rank's tokens give what they give where all experts are, noise included; an expert's gradient is the sum over
// the ranks; and what was sent is the rows that left, there and back, and their gradients.
void check(int64_t num_experts, int64_t num_ranks) {
  test::across_ranks(num_ranks, [=](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, {.timeout_seconds = 30.0});
    const auto work = make_work(num_experts, num_ranks);
    const RankExchange exchange(*world, /*carries_numbers=*/true);
    const auto share = expert_share(num_experts, num_ranks, launch.rank);
    const auto here = [&](const at::Tensor& all) { return all.narrow(0, share.experts.begin, share.experts.size()); };
    const auto before = world->wire_bytes().all_to_all;
    const auto result = run(work, launch.rank, here(work.wi), here(work.wo), &exchange);
    const auto sent = world->wire_bytes().all_to_all - before;

    const auto alone = run(work, launch.rank, work.wi, work.wo, nullptr);
    const double tolerance = test::tolerance_of(at::kFloat, 3 * kHidden);  // a gradient is behind three products
    EXPECT_LT(test::relative_error(result.y, alone.y), tolerance);
    EXPECT_LT(test::relative_error(result.grad_x, alone.grad_x), tolerance);

    // Ranks with the same expert each have a part of its gradient.
    auto grad = result.grad_wi.clone();
    if (share.ranks.size() > 1) {
      std::vector<int64_t> same(static_cast<size_t>(share.ranks.size()));
      std::iota(same.begin(), same.end(), share.ranks.begin);
      world->subgroup("same", same)->all_reduce(grad);
    }
    auto expected = run(work, 0, work.wi, work.wo, nullptr).grad_wi;
    for (int64_t rank = 1; rank < num_ranks; ++rank)
      expected = expected + run(work, rank, work.wi, work.wo, nullptr).grad_wi;
    EXPECT_LT(test::relative_error(grad, here(expected)), tolerance);

    const auto rows_between = [&](int64_t from, int64_t to) {
      const auto there = expert_share(num_experts, num_ranks, to);
      if (there.ranks.begin + from % there.ranks.size() != to) return int64_t{0};
      int64_t rows = 0;
      for (int64_t expert = there.experts.begin; expert < there.experts.end; ++expert)
        rows += work.num_rows[static_cast<size_t>(from * num_experts + expert)];
      return rows;
    };
    int64_t bytes = 0;
    constexpr int64_t kRow = kModel * 4;
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      if (rank == launch.rank) continue;
      const int64_t out = rows_between(launch.rank, rank), in = rows_between(rank, launch.rank);
      bytes += out * (2 * kRow + 8) +
               in * 2 * kRow;  // rows, gradients of results and numbers go; results and gradients of rows return
      bytes += expert_share(num_experts, num_ranks, rank).experts.size() * 8;  // counts
    }
    EXPECT_EQ(sent, bytes);
  });
}

TEST(RankExchange, TwoRanksShareExperts) { check(8, 2); }
TEST(RankExchange, ExpertsThatRanksDoNotDivide) { check(5, 3); }
TEST(RankExchange, MoreRanksThanExperts) { check(2, 3); }

TEST(SharedTokens, EachRankWorksForAll) {
  test::across_ranks(3, [](const Launch& launch) {
    const auto world = ProcessGroup::connect(launch, {.timeout_seconds = 30.0});
    for (const int64_t num_experts : {2, 5}) {
      const auto work = make_work(num_experts, 1);
      const SharedTokens exchange(*world);
      const auto experts = expert_share(num_experts, 3, launch.rank).experts;
      const auto dispatch = dispatch_of(work, 0);
      const auto gate = work.gate[0].narrow(0, 0, dispatch.num_rows());
      const auto part = [&](const at::Tensor& all) { return all.narrow(0, experts.begin, experts.size()); };
      const auto y =
          ops::experts_feed_forward(work.x[0], gate, dispatch, part(work.wi), {}, part(work.wo), {}, &exchange);
      const auto alone = ops::experts_feed_forward(work.x[0], gate, dispatch, work.wi, {}, work.wo, {});
      EXPECT_LT(test::relative_error(y, alone), test::tolerance_of(at::kFloat, kHidden));
    }
  });
}

}  // namespace
}  // namespace switchyard
