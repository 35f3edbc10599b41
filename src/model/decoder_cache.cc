#include "model/decoder_cache.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "base/error.h"
#include "model/fused_decoding.h"
#include "ops/attention.h"
#include "ops/layers.h"
#include "ops/product.h"
#include "ops/quantized.h"

namespace switchyard {

DecoderCache::DecoderCache(const ComputeWeights& weights, int64_t slots, int64_t max_length) : max_length_(max_length) {
  SY_CHECK(slots >= 1 && max_length >= 1, "decoding: ", slots, " slots of ", max_length,
           " positions; expected at least one of each");
  rows_.resize(static_cast<size_t>(slots));
  prompts_.resize(static_cast<size_t>(slots));
  const auto options = weights.output.options().dtype(weights.dtype);
  for (const auto& block : weights.decoder.blocks) {
    const int64_t width = ops::inputs_of(block.self_attention.o);
    const auto empty = [&](int64_t length) { return at::empty({slots, length, width}, options); };
    layers_.push_back({empty(max_length), empty(max_length), empty(0), empty(0)});
  }
}

int64_t DecoderCache::free_slots() const {
  return std::count_if(rows_.begin(), rows_.end(), [](const Row& row) { return !row.used; });
}

int64_t DecoderCache::take_slot() {
  const auto free = std::find_if(rows_.begin(), rows_.end(), [](const Row& row) { return !row.used; });
  SY_CHECK(free != rows_.end(), "decoding: all ", rows_.size(), " slots are taken");
  free->used = true;
  return free - rows_.begin();
}

// A prompt longer than all before it: the others' encoder positions are copied into larger memory.
void DecoderCache::reserve_encoder(int64_t length) {
  if (length <= encoder_capacity_) return;
  const int64_t old_capacity = encoder_capacity_;
  encoder_capacity_ = std::max(length, 2 * old_capacity);
  const auto grown = [&](const at::Tensor& old) {
    auto sizes = old.sizes().vec();
    sizes[1] = encoder_capacity_;
    auto larger = at::empty(sizes, old.options());
    for (size_t prompt = 0; prompt < prompts_.size(); ++prompt) {
      const auto place = static_cast<int64_t>(prompt);
      if (prompts_[prompt].rows > 0)
        larger.select(0, place)
            .slice(0, 0, prompts_[prompt].length)
            .copy_(old.select(0, place).slice(0, 0, prompts_[prompt].length));
    }
    return larger;
  };
  for (auto& layer : layers_) {
    layer.cross_keys = grown(layer.cross_keys);
    layer.cross_values = grown(layer.cross_values);
  }
  if (encoder_mask_.defined()) encoder_mask_ = grown(encoder_mask_);
}

std::vector<int64_t> DecoderCache::add_rows(const ComputeWeights& weights, const at::Tensor& encoder_hidden,
                                            const at::Tensor& encoder_mask) {
  const at::NoGradGuard no_grad;
  const int64_t count = encoder_hidden.size(0), length = encoder_hidden.size(1);
  SY_CHECK(count <= free_slots(), "decoding: ", count, " rows to add, but only ", free_slots(), " of ", rows_.size(),
           " slots are free");
  reserve_encoder(length);
  if (encoder_mask.defined() && !encoder_mask_.defined())
    encoder_mask_ = at::ones({static_cast<int64_t>(rows_.size()), encoder_capacity_}, encoder_mask.options());
  std::vector<int64_t> slots, prompts;
  for (int64_t n = 0; n < count; ++n) {
    const auto free =
        std::find_if(prompts_.begin(), prompts_.end(), [](const Prompt& prompt) { return prompt.rows == 0; });
    *free = {.rows = 1, .length = length};
    prompts.push_back(free - prompts_.begin());
    slots.push_back(take_slot());
    rows_[static_cast<size_t>(slots.back())] = {.used = true, .length = 0, .prompt = prompts.back()};
    if (encoder_mask_.defined()) {
      auto mask = encoder_mask_.select(0, prompts.back()).slice(0, 0, length);
      if (encoder_mask.defined())
        mask.copy_(encoder_mask.select(0, n));
      else
        mask.fill_(true);
    }
  }
  for (size_t block = 0; block < layers_.size(); ++block) {
    const auto kv = ops::linear(encoder_hidden, weights.decoder.blocks[block].cross_attention.kv).chunk(2, 2);
    for (int64_t n = 0; n < count; ++n) {
      const int64_t prompt = prompts[static_cast<size_t>(n)];
      layers_[block].cross_keys.select(0, prompt).slice(0, 0, length).copy_(kv[0].select(0, n));
      layers_[block].cross_values.select(0, prompt).slice(0, 0, length).copy_(kv[1].select(0, n));
    }
  }
  return slots;
}

int64_t DecoderCache::copy_row(int64_t slot) {
  const Row from = rows_.at(static_cast<size_t>(slot));
  SY_CHECK(from.used, "decoding: slot ", slot, " holds no row");
  const int64_t to = take_slot();
  for (auto& layer : layers_)
    for (auto* tensor : {&layer.self_keys, &layer.self_values})
      tensor->select(0, to).slice(0, 0, from.length).copy_(tensor->select(0, slot).slice(0, 0, from.length));
  rows_[static_cast<size_t>(to)] = from;
  ++prompts_[static_cast<size_t>(from.prompt)].rows;
  return to;
}

void DecoderCache::remove_row(int64_t slot) {
  Row& row = rows_.at(static_cast<size_t>(slot));
  SY_CHECK(row.used, "decoding: slot ", slot, " holds no row");
  --prompts_[static_cast<size_t>(row.prompt)].rows;
  row = {};
}

std::vector<int64_t> DecoderCache::replace_rows(const std::vector<int64_t>& slots,
                                                const std::vector<int64_t>& parents) {
  for (const int64_t parent : parents)
    SY_CHECK(std::find(slots.begin(), slots.end(), parent) != slots.end(), "decoding: slot ", parent,
             " is none of the rows that end or go on");
  for (const int64_t slot : slots)
    if (std::find(parents.begin(), parents.end(), slot) == parents.end()) remove_row(slot);
  std::vector<int64_t> result;
  for (size_t n = 0; n < parents.size(); ++n) {
    const auto before = parents.begin() + static_cast<std::ptrdiff_t>(n);
    result.push_back(std::find(parents.begin(), before, parents[n]) == before ? parents[n] : copy_row(parents[n]));
  }
  return result;
}

CachedRows::CachedRows(DecoderCache& cache, const std::vector<int64_t>& slots, int64_t new_length)
    : cache_(cache), slots_(slots), new_length_(new_length) {
  std::vector<int64_t> positions;
  for (const int64_t slot : slots) {
    SY_CHECK(
        slot >= 0 && slot < static_cast<int64_t>(cache.rows_.size()) && cache.rows_[static_cast<size_t>(slot)].used,
        "decoding: slot ", slot, " holds no row");
    const auto& row = cache.rows_[static_cast<size_t>(slot)];
    SY_CHECK(row.length + new_length <= cache.max_length_, "decoding: ", row.length + new_length,
             " positions, the cache holds ", cache.max_length_);
    prompts_.push_back(row.prompt);
    num_keys_.push_back(row.length + new_length);
    num_encoder_keys_.push_back(cache.prompts_[static_cast<size_t>(row.prompt)].length);
    for (int64_t n = 0; n < new_length; ++n) positions.push_back(slot * cache.max_length_ + row.length + n);
  }
  longest_ = *std::max_element(num_keys_.begin(), num_keys_.end());
  longest_encoder_ = *std::max_element(num_encoder_keys_.begin(), num_encoder_keys_.end());
  positions_ = at::tensor(positions, at::kLong).to(cache.layers_.at(0).self_keys.device());
}

at::Tensor CachedRows::attend_self(size_t block, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& position_bias, int64_t num_heads) {
  auto& layer = cache_.layers_[block];
  for (const auto& [kept, added] : {std::pair{&layer.self_keys, &k}, std::pair{&layer.self_values, &v}})
    kept->view({-1, k.size(2)}).index_copy_(0, positions_, added->reshape({-1, k.size(2)}));
  return ops::cached_attention(q, layer.self_keys.slice(1, 0, longest_), layer.self_values.slice(1, 0, longest_),
                               position_bias, /*key_mask=*/{}, {slots_, num_keys_},
                               {.num_heads = num_heads, .causal = true, .query_offset = longest_ - new_length_});
}

at::Tensor CachedRows::attend_encoder(size_t block, const at::Tensor& q, int64_t num_heads) const {
  const auto& layer = cache_.layers_[block];
  const auto mask = cache_.encoder_mask_.defined() ? cache_.encoder_mask_.slice(1, 0, longest_encoder_) : at::Tensor();
  return ops::cached_attention(q, layer.cross_keys.slice(1, 0, longest_encoder_),
                               layer.cross_values.slice(1, 0, longest_encoder_), /*bias_by_distance=*/{}, mask,
                               {prompts_, num_encoder_keys_}, {.num_heads = num_heads});
}

FusedDecoding* CachedRows::fused(const ModelConfig& config, const ComputeWeights& weights) const {
  if (new_length_ != 1 || static_cast<int64_t>(slots_.size()) > ops::kFewRows) return nullptr;
  const void* const here = weights.output.const_data_ptr();
  if (cache_.fused_weights_ != here) {
    cache_.fused_ = FusedDecoding::make(config, weights, cache_);
    cache_.fused_weights_ = here;
  }
  return cache_.fused_.get();
}

void CachedRows::advance() {
  for (const int64_t slot : slots_) cache_.rows_[static_cast<size_t>(slot)].length += new_length_;
}

}  // namespace switchyard
