// What step-by-step decoding keeps between steps: keys and values of rows that begin and end at any time.
//
// Memory is taken once, for a number of slots. A row has a slot and a length of its own; adding or removing one leaves
// the others where they are. The encoder's keys and values are held once a prompt, however many rows (beams, samples)
// go on from it. Only filled positions are ever copied.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "model/config.h"
#include "model/transformer.h"

namespace switchyard {

class FusedDecoding;

class DecoderCache {
 public:
  // For at most `slots` rows of at most `max_length` positions each.
  DecoderCache(const ComputeWeights& weights, int64_t slots, int64_t max_length);

  int64_t free_slots() const;
  int64_t max_length() const { return max_length_; }
  int64_t length(int64_t slot) const { return rows_.at(static_cast<size_t>(slot)).length; }  // positions decoded so far

  // Starts one empty row for each row of encoder_hidden [prompts, encoder_length, d_model], with the encoder's mask
  // [prompts, encoder_length] bool or undefined; returns their slots. Throws Error if too few slots are free.
  std::vector<int64_t> add_rows(const ComputeWeights& weights, const at::Tensor& encoder_hidden,
                                const at::Tensor& encoder_mask);
  // Ends the rows in `slots`, but for those that `parents` names: they go on, once for each time they are named.
  // Returns the new rows' slots in the order of `parents`. A row that goes on n times is copied n - 1
  // times; the others stay where they are. Throws Error if too few slots are free.
  std::vector<int64_t> replace_rows(const std::vector<int64_t>& slots, const std::vector<int64_t>& parents);

 private:
  friend class CachedRows;
  template <class T>
  friend class FusedDecodingOf;
  struct Row {
    bool used = false;
    int64_t length = 0;
    int64_t prompt = 0;  // place along the first axis of cross_keys
  };
  struct Prompt {
    int64_t rows = 0;    // that use it; 0: free
    int64_t length = 0;  // encoder positions
  };
  struct Layer {
    at::Tensor self_keys, self_values;    // [slots, max_length, heads * d_kv]; a row's first `length` are filled
    at::Tensor cross_keys, cross_values;  // [slots, encoder_capacity, heads * d_kv], by prompt
  };
  int64_t take_slot();
  int64_t copy_row(int64_t slot);
  void remove_row(int64_t slot);
  void reserve_encoder(int64_t length);

  int64_t max_length_;
  int64_t encoder_capacity_ = 0;
  std::vector<Row> rows_;        // [slots]
  std::vector<Prompt> prompts_;  // [slots]: there are never more prompts than rows
  at::Tensor encoder_mask_;      // [slots, encoder_capacity] bool: undefined while no prompt has padding
  std::vector<Layer> layers_;
  // What decode_step() keeps for the weights that it was last called with (model/fused_decoding.h).
  std::shared_ptr<FusedDecoding> fused_;
  const void* fused_weights_ = nullptr;
};

// Rows of a cache during one decode_step.
class CachedRows {
 public:
  // Makes room for new_length positions of each row. Throws Error beyond max_length and for a slot without a row.
  CachedRows(DecoderCache& cache, const std::vector<int64_t>& slots, int64_t new_length);

  int64_t longest() const { return longest_; }  // positions of the longest row, the new ones included

  // Appends k and v [rows, new_length, heads * d_kv] to layer `block`; self-attention of q, which is of their shape,
  // over all that is there. position_bias: by distance, of the longest row (ops::cached_attention).
  at::Tensor attend_self(size_t block, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const at::Tensor& position_bias, int64_t num_heads);
  at::Tensor attend_encoder(size_t block, const at::Tensor& q, int64_t num_heads) const;

  void advance();  // counts the new positions, after all layers

  // What computes a step of these rows by kernels alone; null where operations must.
  FusedDecoding* fused(const ModelConfig& config, const ComputeWeights& weights) const;

 private:
  template <class T>
  friend class FusedDecodingOf;
  DecoderCache& cache_;
  std::vector<int64_t> slots_, prompts_;              // [rows]
  std::vector<int64_t> num_keys_, num_encoder_keys_;  // [rows], the new positions included
  int64_t new_length_, longest_ = 0, longest_encoder_ = 0;
  at::Tensor positions_;  // [rows * new_length] i64: the new positions along [slots * max_length]
};

}  // namespace switchyard
