// A student's first weights: what its teacher has outside experts (Switch §4.2).
#pragma once

#include "checkpoint/model_directory.h"

namespace switchyard {

// The dense model of the teacher's other sizes: equal FLOPs a token, one network in place of every layer's experts.
ModelConfig dense_twin(ModelConfig teacher);

// Copies every weight of the teacher outside experts and routers that the student has, too, and returns the number of
// values copied. Layers that are dense in the student and have experts in the teacher stay as they are. Only what
// is copied is read. Throws Error naming the first weight of another shape.
int64_t inherit_weights(const ModelConfig& student, ModelWeights& weights, const ModelFiles& teacher);

}  // namespace switchyard
