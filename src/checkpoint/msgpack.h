// The arrays in a msgpack file as Flax writes it (flax.serialization): nested maps with string keys and numpy arrays as
// extension 1, each [shape, dtype name, bytes].
#pragma once

#include <functional>

#include "checkpoint/byte_stream.h"
#include "checkpoint/safetensors.h"

namespace switchyard {

// The arrays whose path ("optimizer/target/encoder/...", keys joined by '/') `wanted` accepts, as owned tensors. Throws
// Error naming `source` and the byte if the data is damaged, or an array's type is not a floating or integer one.
NamedTensors read_msgpack_arrays(ByteStream& bytes, const std::string& source,
                                 const std::function<bool(const std::string& path)>& wanted);

}  // namespace switchyard
