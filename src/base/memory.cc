#include "base/memory.h"

#include <malloc.h>

#include <climits>
#include <cstdlib>

namespace switchyard {

void keep_freed_memory() {
  if (std::getenv("MALLOC_MMAP_THRESHOLD_") != nullptr) return;
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

}  // namespace switchyard
