// The weights that a training step's passes read: copies of the parameters in the dtype of its products, q, k and v as
// one matrix, kept from step to step. They are autograd's leaves, so that a gradient stays in the form in which a
// product leaves it until the optimiser reads it, and the optimiser's own sweep writes the new copy: no step passes
// over all weights to cast them, or over all gradients.
#pragma once

#include <functional>
#include <vector>

#include "model/compute_weights.h"

namespace switchyard {

class PassWeights {
 public:
  // Of the parameters in list_parameters()' order as they are now; those that a pass reads in the dtype and shape that
  // they have are read themselves. What is not trained gets no gradient.
  PassWeights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype,
              const std::vector<bool>& is_trained);

  const ComputeWeights& compute() const { return compute_; }

  // Where the parameter's values are read in another dtype or as a part of another matrix, a view of the parameter's
  // shape; undefined where passes read the parameter itself. Whoever changes a parameter writes its copy as well.
  const at::Tensor& copy(size_t parameter) const { return copies_[parameter]; }
  void refresh();  // writes all copies

  // From now on all gradients are sums in f32, which ranks add up, and `call` is told of each trained parameter in
  // every backward pass as soon as its gradient is made.
  void sum_in_f32(std::function<void(size_t parameter)> call);

  // After a backward pass that others of the same step follow: gradients in bf16 become sums in f32, in which small
  // ones are not lost.
  void keep_sums();

  // The gradient of a parameter over the step's passes, a view: in the dtype of its products after a single pass,
  // else f32. Undefined if there is none.
  at::Tensor gradient(size_t parameter);
  // Of all parameters; the next step starts without.
  std::vector<at::Tensor> take_gradients();

 private:
  // A matrix with a gradient of its own.
  struct Leaf {
    at::Tensor values;
    at::Tensor sum;  // f32, of passes before this one; undefined: none
    std::vector<size_t> parameters;
  };
  // Where a parameter's values are read: rows of a leaf.
  struct Use {
    size_t leaf;
    int64_t first_row;
  };
  at::Tensor rows(const at::Tensor& matrix, size_t parameter, const Use& use) const;
  static void keep_sum(Leaf& leaf);
  size_t add_leaf(const std::vector<size_t>& parameters, const at::Tensor& values);

  std::vector<NamedParameter> parameters_;  // of weights_
  ModelWeights weights_;                    // handles
  std::vector<bool> is_trained_;
  std::vector<Leaf> leaves_;
  std::vector<std::vector<Use>> uses_;  // [parameter]: two for a table that is looked up and multiplied
  std::vector<at::Tensor> copies_;      // [parameter]
  std::vector<size_t> num_made_;        // [parameter]: leaves whose gradient this pass has made
  ComputeWeights compute_;
};

}  // namespace switchyard
