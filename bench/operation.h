// Operations as they are measured: by Switchyard's kernels, by the plain composition beside them, and as ATen offers
// the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace switchyard::bench {

using Form = std::function<at::Tensor()>;

struct Operation {
  Form kernel;
  Form plain;                           // empty: there is none
  Form aten;                            // likewise
  std::vector<at::Tensor> leaves = {};  // that the result has gradients for; none: no backward pass
};

// A function of ops/ as it is with --kernels reference.
Form in_plain_form(const Form& kernel);

// Registers NAME/DTYPE/FORM/PASS with Google Benchmark for the forms that there are and the passes forward and, with
// leaves, both. `make` makes fresh tensors; it is called once a benchmark.
void add_operation(const std::string& name, const std::vector<at::ScalarType>& dtypes,
                   const std::function<Operation(at::ScalarType)>& make);

void add_attention();
void add_layers();
void add_optimizers();

}  // namespace switchyard::bench
