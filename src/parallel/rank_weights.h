// What one rank holds of a model's weights, read or made parameter by parameter: never the whole model.
#pragma once

#include <functional>

#include "parallel/update_exchange.h"

namespace switchyard {

// Values of a parameter, f32 on the CPU and the caller's to keep: [experts.size(), ...] of these experts, or with
// {0, 1} all of a parameter without experts. Asked for once a parameter, in the model's order.
using ParameterValues = std::function<at::Tensor(size_t parameter, Slice experts)>;

struct RankWeights {
  ModelWeights weights;         // this rank's part of every parameter
  std::vector<at::Tensor> own;  // [own unit of the exchange]: whole values; views of the weights where those are whole
};

// A rank's part of a parameter along its tensor axis, of values that have the experts that are wanted: a copy, or the
// values themselves where they are not cut.
at::Tensor part_of_width(const ParameterSpec& spec, const Shard& shard, const at::Tensor& values);

RankWeights cut_weights(const ModelConfig& config, const UpdateExchange& exchange, const Mesh& mesh,
                        const ParameterValues& values, at::Device device);

}  // namespace switchyard
