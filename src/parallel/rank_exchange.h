// How tokens reach experts on other ranks of their expert group (ops/dispatch.h has the interface).
#pragma once

#include "ops/dispatch.h"
#include "parallel/process_group.h"

namespace switchyard {

// Every rank has tokens of its own: one all-to-all of row counts, then one of rows each way, and the same two of
// gradients in the backward pass. Where ranks hold the same expert, each takes the rows of its share of the ranks.
// What travels: rows in their dtype; a row's number (8 bytes) only where experts draw noise.
class RankExchange final : public ops::TokenExchange {
 public:
  // The group outlives the exchange. carries_numbers: whether rows keep their numbers, which are 0 there otherwise.
  RankExchange(const ProcessGroup& experts, bool carries_numbers)
      : experts_(experts), carries_numbers_(carries_numbers) {}

  ops::RowsAtExperts to_experts(const at::Tensor& rows, const ops::Dispatch& dispatch) const override;
  at::Tensor to_tokens(const at::Tensor& rows, const ops::RowsAtExperts& there) const override;

 private:
  const ProcessGroup& experts_;
  bool carries_numbers_;
};

// All ranks of the group have the same tokens, as in evaluation and generation: each works on the rows of its own
// experts, and the results are summed. Without gradient.
class SharedTokens final : public ops::TokenExchange {
 public:
  explicit SharedTokens(const ProcessGroup& experts) : experts_(experts) {}

  ops::RowsAtExperts to_experts(const at::Tensor& rows, const ops::Dispatch& dispatch) const override;
  at::Tensor to_tokens(const at::Tensor& rows, const ops::RowsAtExperts& there) const override;

 private:
  const ProcessGroup& experts_;
};

}  // namespace switchyard
