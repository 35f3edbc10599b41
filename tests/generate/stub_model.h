// A NextTokens whose logits are a function of the prompt and its tokens: searches are tested without a model.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include "generate/search.h"

namespace switchyard {

class StubModel : public NextTokens {
 public:
  // Logits [vocab] of what follows `history` (start token first) of prompt `prompt`.
  using Logits = std::function<std::vector<float>(size_t prompt, const std::vector<int32_t>& history)>;

  StubModel(size_t num_prompts, Logits logits)
      : logits_(std::move(logits)), histories_(num_prompts), prompts_(num_prompts) {
    std::iota(prompts_.begin(), prompts_.end(), 0);
  }

  at::Tensor advance(std::span<const int32_t> ids) override {
    EXPECT_EQ(ids.size(), histories_.size());
    rows_advanced += ids.size();
    std::vector<std::vector<float>> rows;
    for (size_t row = 0; row < ids.size(); ++row) {
      histories_[row].push_back(ids[row]);
      rows.push_back(logits_(prompts_[row], histories_[row]));
    }
    auto result = at::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows.at(0).size())}, at::kFloat);
    float* out = result.mutable_data_ptr<float>();
    for (const auto& row : rows) out = std::copy(row.begin(), row.end(), out);
    return result;
  }

  void select_rows(std::span<const int64_t> rows) override {
    std::vector<std::vector<int32_t>> histories;
    std::vector<size_t> prompts;
    for (const int64_t row : rows) {
      histories.push_back(histories_.at(static_cast<size_t>(row)));
      prompts.push_back(prompts_.at(static_cast<size_t>(row)));
    }
    histories_ = std::move(histories);
    prompts_ = std::move(prompts);
  }

  size_t rows_advanced = 0;  // over all steps

 private:
  Logits logits_;
  std::vector<std::vector<int32_t>> histories_;
  std::vector<size_t> prompts_;
};

}  // namespace switchyard
