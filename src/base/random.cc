#include "base/random.h"

#include "base/error.h"

namespace switchyard {

uint64_t permute(uint64_t index, uint64_t size, const NoiseKey& key) {
  SY_CHECK(index < size, "permute: index ", index, " is not below size ", size);
  int half_bits = 1;
  while (half_bits < 32 && (uint64_t{1} << (2 * half_bits)) < size) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  const auto words = stream_key(key);
  do {  // at most 4 walks in expectation: the domain is under four times `size`
    uint64_t left = index >> half_bits, right = index & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const uint64_t mixed = philox({static_cast<uint32_t>(right), round, 0, 0}, words)[0] & mask;
      const uint64_t next_right = left ^ mixed;
      left = right;
      right = next_right;
    }
    index = (left << half_bits) | right;
  } while (index >= size);
  return index;
}

}  // namespace switchyard
