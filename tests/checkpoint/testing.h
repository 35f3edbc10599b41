// What several test files of this folder need: scratch folders, small models, comparison of whole ones, changed files.
#pragma once

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <functional>

#include "checkpoint/safetensors.h"
#include "checkpoint/stored_tensors.h"
#include "model/parameters.h"
#include "testing/scratch_folder.h"

namespace switchyard {

using test::ScratchFolder;

inline std::string gzipped(const std::string& bytes) {
  z_stream stream{};
  deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// All tensors with their values, as stored.
inline NamedTensors read_all(const StoredTensors& stored) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : stored) tensors[name] = read_tensor(tensor, tensor.dtype);
  return tensors;
}

// A preset with a vocabulary of 128.
inline ModelConfig small_model(const char* preset_name, bool gated = false, bool tie_output = true) {
  auto config = preset(preset_name);
  config.vocab_size = 128;
  config.gated = gated;
  config.tie_output = config.scale_output = tie_output;
  config.activation = gated ? Activation::kGeluNew : Activation::kRelu;
  return config;
}

// Rewrites a folder's model.safetensors with changed tensors.
inline void rewrite_tensors(const std::filesystem::path& folder, const std::function<void(NamedTensors&)>& change) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : read_all(list_model_tensors(folder))) tensors[name] = tensor.clone();
  change(tensors);
  std::vector<TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) list.push_back({name, tensor, tensor.scalar_type()});
  write_safetensors(folder / "model.safetensors", list);
}

// Asserts that two models have the same parameters, bit for bit.
inline void expect_equal_weights(const ModelConfig& config, ModelWeights expected, ModelWeights actual) {
  const auto expected_list = list_parameters(config, expected), actual_list = list_parameters(config, actual);
  ASSERT_EQ(expected_list.size(), actual_list.size());
  for (size_t i = 0; i < expected_list.size(); ++i) {
    const auto& name = expected_list[i].spec.name;
    ASSERT_TRUE(actual_list[i].tensor->defined()) << name;
    EXPECT_EQ(expected_list[i].tensor->scalar_type(), actual_list[i].tensor->scalar_type()) << name;
    EXPECT_TRUE(at::equal(*expected_list[i].tensor, *actual_list[i].tensor)) << name;
  }
}

}  // namespace switchyard
