#include <ATen/ops/empty.h>

#include <array>
#include <cmath>
#include <numbers>

#include "base/random.h"
#include "model/parameters.h"

namespace switchyard {
namespace {

// FNV-1a: ties a parameter's stream to its name, so that adding a layer changes no other parameter's values.
uint64_t name_hash(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
  return hash;
}

// Four normals from four words (Box-Muller). The first word is mapped to (0, 1], so that its logarithm is finite.
std::array<float, 4> normals(const std::array<uint32_t, 4>& words) {
  std::array<float, 4> result{};
  for (size_t pair = 0; pair < 2; ++pair) {
    const float radius = std::sqrt(-2.0f * std::log(1.0f - to_uniform(words[2 * pair])));
    const float angle = 2.0f * std::numbers::pi_v<float> * to_uniform(words[2 * pair + 1]);
    result[2 * pair] = radius * std::cos(angle);
    result[2 * pair + 1] = radius * std::sin(angle);
  }
  return result;
}

// Value n of a stream: the first of its candidates that lies within two standard deviations, as TensorFlow's truncated
// normal (no rescaling afterwards).
float truncated_normal(uint64_t n, const std::array<uint32_t, 2>& key) {
  for (uint32_t attempt = 0;; ++attempt)
    for (const float value :
         normals(philox({static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), attempt, 1}, key)))
      if (std::abs(value) <= 2.0f) return value;
}

// Values first, first + 1, ... of a parameter.
void fill(at::Tensor& tensor, int64_t first, const ParameterSpec& spec, uint64_t seed) {
  if (spec.initializer == Initializer::kZeros) return void(tensor.zero_());
  if (spec.initializer == Initializer::kOnes) return void(tensor.fill_(1.0));
  const auto key = stream_key({.seed = seed, .purpose = NoisePurpose::kInitialization, .step = name_hash(spec.name)});
  const auto stddev = static_cast<float>(spec.stddev);
  const bool truncated = spec.initializer == Initializer::kTruncatedNormal;
  float* values = tensor.mutable_data_ptr<float>();
  const int64_t end = first + tensor.numel();
#pragma omp parallel for schedule(static)
  for (int64_t block = first / 4; block < (end + 3) / 4; ++block) {
    const auto drawn = normals(philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0}, key));
    for (int64_t n = std::max(first, 4 * block); n < std::min(end, 4 * block + 4); ++n) {
      float value = drawn[static_cast<size_t>(n - 4 * block)];
      if (truncated && std::abs(value) > 2.0f) value = truncated_normal(static_cast<uint64_t>(n), key);
      values[n - first] = stddev * value;
    }
  }
}

}  // namespace

at::Tensor initial_values(const ParameterSpec& spec, uint64_t seed, Slice experts) {
  auto shape = spec.shape;
  int64_t first = 0;
  if (spec.is_expert()) {
    first = spec.numel() / spec.shape[0] * experts.begin;
    shape[0] = experts.size();
  }
  auto values = at::empty(shape, at::kFloat);
  fill(values, first, spec, seed);
  return values;
}

ModelWeights initialize(const ModelConfig& config, uint64_t seed, at::Device device) {
  validate(config);
  ModelWeights weights;
  for (auto& [spec, tensor] : list_parameters(config, weights))
    *tensor = initial_values(spec, seed, {0, spec.is_expert() ? spec.shape[0] : 1}).to(device);
  return weights;
}

}  // namespace switchyard
