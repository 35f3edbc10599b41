// The choices in which routers differ, under the words of run files. Configuration and operations share these enums.
#pragma once

#include "base/enum_words.h"

namespace switchyard {

enum class RouterKind {
  kTopK,               // each token takes its num_selected_experts best experts (Switch §2.1; 1 is Switch)
  kNoTokenLeftBehind,  // its best expert with a free slot, of num_reroute_stages (Switch App. B)
  kExpertChoice,       // each expert takes its best expert_capacity tokens (Zhou et al. 2022); encoder only
  kHash,               // a fixed random expert for each id (Roller et al. 2021)
};
template <>
inline constexpr auto enum_words<RouterKind> = std::to_array<const char*>({"top_k", "no_token_left_behind",
                                                                           "expert_choice", "hash"});

// What experts are chosen and weighed by: softmax over experts, or each expert's sigmoid (DeepSeek-V3), which is
// divided by its sum over experts where a distribution is wanted (balance loss, entropy).
enum class RouterScore { kSoftmax, kSigmoid };
template <>
inline constexpr auto enum_words<RouterScore> = std::to_array<const char*>({"softmax", "sigmoid"});

// What a token's gates are divided by; in expert choice nothing.
enum class GateNormalization {
  kNone,        // Switch: nothing
  kBeforeDrop,  // the sum over its choices, + 1e-9 (Mesh top-2)
  kAfterDrop,   // the sum over the choices it was given, + 1e-9 (DeepSpeed)
};
template <>
inline constexpr auto enum_words<GateNormalization> = std::to_array<const char*>({"none", "before_drop", "after_drop"});

// Which choices beyond the first are used (Mesh second_policy). The gate is the normalised one where gates are.
enum class SecondExpertPolicy {
  kAll,
  kSampled,    // with probability min(1, gate / threshold); in training only
  kThreshold,  // if gate > threshold
};
template <>
inline constexpr auto enum_words<SecondExpertPolicy> = std::to_array<const char*>({"all", "sampled", "threshold"});

// Who gets an expert's slots first.
enum class DropPriority {
  kChoice,  // all first choices in token order, then all second ones (Mesh; Switch §2.2)
  kToken,   // token by token with all its choices (DeepSpeed by position)
  kBatch,   // as kChoice, tokens with the highest score first (batch prioritised, V-MoE). Not causal
  kExpert,  // each expert keeps those that score it highest (Mesh switch_max, DeepSpeed by probability). Not causal
};
template <>
inline constexpr auto enum_words<DropPriority> = std::to_array<const char*>({"choice", "token", "batch", "expert"});

// What padding does besides taking no slot.
enum class PaddingRule {
  kIgnored,
  kCountedInLoad,  // its argmax counts in f and every mean is over all positions while P leaves it out (Mesh)
  kRouted,         // nothing is padding: it is routed as if it were text (T5X, HF)
};
template <>
inline constexpr auto enum_words<PaddingRule> = std::to_array<const char*>({"ignored", "counted_in_load", "routed"});

// Exploration in training (Switch table 11).
enum class Exploration { kJitter, kArgmax, kInputDropout, kSample };
template <>
inline constexpr auto enum_words<Exploration> = std::to_array<const char*>({"jitter", "argmax", "input_dropout",
                                                                            "sample"});

// f of the balance loss: the share of tokens whose first choice an expert is (Mesh; uniform routing gives 1), of all
// choices (T5X; their number), or that divided by their number (Megablocks; 1).
enum class LoadBalanceChoices { kFirst, kAll, kMean };
template <>
inline constexpr auto enum_words<LoadBalanceChoices> = std::to_array<const char*>({"first", "all", "mean"});

// Over what f and P are means.
enum class LoadBalanceScope { kGroup, kSequence, kBatch };
template <>
inline constexpr auto enum_words<LoadBalanceScope> = std::to_array<const char*>({"group", "sequence", "batch"});

// How the layers' balance losses become one: Mesh sums, T5X takes the mean, HF pools a stack's layers as one.
enum class LoadBalanceLayers { kSum, kMean, kPooled };
template <>
inline constexpr auto enum_words<LoadBalanceLayers> = std::to_array<const char*>({"sum", "mean", "pooled"});

// How a capacity that is no whole number of slots becomes one: Mesh, DeepSpeed, Flaxformer.
enum class CapacityRounding { kFloor, kCeil, kHalfEven };
template <>
inline constexpr auto enum_words<CapacityRounding> = std::to_array<const char*>({"floor", "ceil", "half_even"});

// How tokens are cut into groups: runs of whole sequences, or equal groups as Mesh and T5X count them.
enum class GroupRule { kExact, kMesh, kT5x };
template <>
inline constexpr auto enum_words<GroupRule> = std::to_array<const char*>({"exact", "mesh", "t5x"});

// Whose choices the other routing keys start from.
enum class Convention { kPaper, kMesh, kT5x, kHf };
template <>
inline constexpr auto enum_words<Convention> = std::to_array<const char*>({"paper", "mesh", "t5x", "hf"});

// The precision of a part that may leave the compute dtype.
enum class PartDtype { kFp32, kCompute };
template <>
inline constexpr auto enum_words<PartDtype> = std::to_array<const char*>({"fp32", "compute"});

}  // namespace switchyard
