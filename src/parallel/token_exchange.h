// How tokens reach experts on other ranks (ops/dispatch.h has the interface).
#pragma once

#include "ops/dispatch.h"

namespace switchyard {

// The group of one: every expert is on this rank, rows stay where they are.
class LocalExchange final : public ops::TokenExchange {
 public:
  ops::RowsAtExperts to_experts(const at::Tensor& rows, const ops::Dispatch& dispatch) const override {
    return {rows, dispatch};
  }
  at::Tensor to_tokens(const at::Tensor& rows, const ops::RowsAtExperts&) const override { return rows; }
};

}  // namespace switchyard
