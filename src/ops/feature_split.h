// Layers that are cut along their width (heads, hidden features, the vocabulary): each part of a matrix lies in another
// place, computes from its share of the features, and the parts' results are summed.
//
//   y = sum_of_parts(f_part(to_parts(x)))
//
// Between the two an operation sees its own part alone; outside, everything is whole and equal everywhere. A null split
// stands for matrices that are whole. parallel/ has the implementation.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::ops {

class FeatureSplit {
 public:
  virtual ~FeatureSplit() = default;

  // x itself. Its gradient is the sum of what the parts give. Any shape.
  virtual at::Tensor to_parts(const at::Tensor& x) const = 0;

  // The sum of all parts' x, in x's dtype, added in f32 or wider. The gradient passes as it is.
  virtual at::Tensor sum_of_parts(const at::Tensor& x) const = 0;

  // The elementwise largest of all parts' x [f32 or f64]; without gradient.
  virtual at::Tensor largest_of_parts(const at::Tensor& x) const = 0;

  // The part of `size` features that is here begins with this one. Parts are runs of whole `unit`s.
  virtual int64_t first_here(int64_t size, int64_t unit) const = 0;
};

inline at::Tensor to_parts(const FeatureSplit* split, const at::Tensor& x) {
  return split == nullptr ? x : split->to_parts(x);
}
inline at::Tensor sum_of_parts(const FeatureSplit* split, const at::Tensor& x) {
  return split == nullptr ? x : split->sum_of_parts(x);
}
inline int64_t first_here(const FeatureSplit* split, int64_t size, int64_t unit = 1) {
  return split == nullptr ? 0 : split->first_here(size, unit);
}

// The part of a table with `vocab` rows that is here, and how it is put together with the others.
struct VocabularyPart {
  const FeatureSplit* split = nullptr;  // null: the whole table
  int64_t first = 0, vocab = 0;         // first row that is here; rows of the whole table
};

}  // namespace switchyard::ops
