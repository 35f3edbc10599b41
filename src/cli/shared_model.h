// A model for commands that compute without gradient, on as many ranks as were started: they hold it together, experts
// shared out first, then heads, hidden features and vocabulary, and all compute the same tokens.
#pragma once

#include <filesystem>
#include <memory>

#include "checkpoint/model_directory.h"
#include "parallel/mesh.h"
#include "parallel/rank_exchange.h"
#include "parallel/rank_split.h"

namespace switchyard {

struct SharedModel {
  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<SharedTokens> exchange;
  std::unique_ptr<RankSplit> split;
  InferenceModel model;
};

// One rank opens as open_for_inference(). Of several, each reads its part alone; all but the first say and print
// nothing from then on. Throws Error as open_for_inference() does, for more ranks than experts and heads allow, and for
// an expert_memory (bytes) of several ranks.
SharedModel open_shared_model(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device,
                              std::optional<int64_t> expert_memory);

}  // namespace switchyard
