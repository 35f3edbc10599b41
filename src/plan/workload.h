// What one training step computes, and how much of it falls to one device.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "parallel/shard_plan.h"

namespace switchyard {

struct Workload {
  ModelConfig model;
  int64_t batch_size = 2048;     // sequences a step, over all devices
  int64_t micro_batch_size = 0;  // sequences a forward pass on one device; 0: the planner's choice
  int64_t encoder_length = 512, decoder_length = 114;
  int64_t recompute_blocks = 0;          // of each stack: their activations are made again in the backward pass
  bool is_bf16 = true;                   // compute dtype; weights, gradients and optimiser are f32
  std::string optimizer = "adafactor";   // or adamw, muon
  bool muon_experts = true;              // as the optimiser's key
  int64_t min_dim_size_to_factor = 128;  // Adafactor: smaller sides keep a second moment for every value
  double dropped_fraction = 0.0;         // of the rows that ask for experts
  double load_imbalance = 1.0;           // rows of the busiest rank's experts over the mean

  int64_t compute_bytes() const { return is_bf16 ? 2 : 4; }
};

// Throws Error naming the option if a number is out of range, and as validate(model) does.
void validate(const Workload& workload);

// The part of a batch that one batch rank (of data x expert) computes: whole routing groups, so that the ranks' parts
// may differ by one; the largest.
struct BatchShare {
  int64_t sequences = 0;
  int64_t unit = 1;        // sequences that stay together
  int64_t num_groups = 1;  // such units in the whole batch
  // Sizes that a micro-batch may have, smallest first: multiples of `unit` up to `sequences`, halved from there.
  std::vector<int64_t> micro_batches;
};
BatchShare batch_share(const Workload& workload, const Layout& layout);

// A layer of experts: of a feed-forward network, or of a self-attention's queries, keys and values.
struct SparseSite {
  bool is_decoder = false, is_attention = false;
  int64_t num_experts = 0;
  int64_t length = 0;       // tokens of a sequence
  int64_t value_bytes = 2;  // of a row's values on the way and in the products
  int64_t out_width = 0;    // values of a row on its way back
};
std::vector<SparseSite> sparse_sites(const Workload& workload);

// Rows that `sequences` sequences send to the experts of a site: tokens times choices, no more than all slots hold,
// less what is dropped.
double routed_rows(const Workload& workload, const SparseSite& site, int64_t sequences);

// Products of one sequence in a forward pass as they are computed, not as table 9 counts them: both products of
// attention, routers too.
double computed_flops(const Workload& workload);

}  // namespace switchyard
