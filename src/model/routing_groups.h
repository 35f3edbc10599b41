// Which tokens compete for an expert's slots: the groups of a step's whole batch, whatever parts it is computed in.
//
// A group is a run of whole sequences, the same number in both stacks: as many as fit group_size encoder tokens, at
// least one; the batch's last group may have fewer. Mesh and T5X count equal groups over all tokens of a stack instead,
// which may cut through sequences. A part of a batch computes what the whole does if no group is split between parts.
#pragma once

#include "model/config.h"

namespace switchyard {

// A batch, or the part of one that is routed as a whole.
struct BatchShape {
  int64_t sequences = 0;
  int64_t encoder_length = 0;
  int64_t decoder_length = 0;
};

// Tokens of a group of a layer with `num_experts` in the stack whose sequences have `length` tokens, in a step of
// shape.sequences sequences whose encoder inputs have shape.encoder_length tokens.
int64_t group_tokens(const RoutingConfig& routing, int64_t num_experts, const BatchShape& shape, int64_t length);

// A part of the batch may begin at every multiple of this many sequences: no group and no mean that a loss is made of
// is split then. 1 in a dense model; shape.sequences if the batch cannot be cut.
int64_t sequences_per_cut(const ModelConfig& config, const BatchShape& shape);

// Throws Error naming the legal sizes if micro-batches of `micro_batch_size` sequences would split a group; 0 is the
// whole batch.
void check_micro_batch(const ModelConfig& config, const BatchShape& shape, int64_t micro_batch_size);

// Sequences that are routed together in evaluation, where there is no step: as many as a group holds, or for Mesh's and
// T5X's rules as reach group_size. Evaluating any multiple of them at a time gives the same.
int64_t evaluation_sequences(const RoutingConfig& routing, int64_t encoder_length);

// `requested` sequences, rounded up to whole groups of evaluation.
int64_t evaluation_batch_size(const RoutingConfig& routing, int64_t encoder_length, int64_t requested);

// Number of equal groups of `tokens`, as Mesh (a divisor of tokens, from tokens / group_size up) and Flaxformer (also a
// multiple of num_experts * num_replicas, if there is one) count them. Groups can exceed group_size: both round down.
int64_t mesh_num_groups(int64_t group_size, int64_t tokens);
int64_t t5x_num_groups(int64_t group_size, int64_t tokens, int64_t num_experts, int64_t num_replicas);

}  // namespace switchyard
