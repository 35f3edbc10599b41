// The operations of a training step beside their plain forms and ATen's: tools/bench_ops.py runs this and makes a
// table.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/memory.h"
#include "bench/operation.h"
#include "ops/backend.h"

namespace switchyard::bench {
namespace {

void measure(benchmark::State& state, const Form& form, const std::vector<at::Tensor>& leaves, bool backward) {
  const at::AutoGradMode with_grad(backward);
  for (auto _ : state) {
    const auto out = form();
    if (backward) torch::autograd::grad({out}, leaves, {at::ones_like(out)});
  }
}

}  // namespace

Form in_plain_form(const Form& kernel) {
  return [kernel] {
    ops::use_reference_kernels(true);
    const auto out = kernel();
    ops::use_reference_kernels(false);
    return out;
  };
}

void add_operation(const std::string& name, const std::vector<at::ScalarType>& dtypes,
                   const std::function<Operation(at::ScalarType)>& make) {
  constexpr std::pair<const char*, Form Operation::*> kForms[] = {
      {"kernel", &Operation::kernel}, {"plain", &Operation::plain}, {"aten", &Operation::aten}};
  for (const auto dtype : dtypes) {
    const auto example = make(dtype);
    for (const auto& [form_name, form] : kForms)
      for (const bool backward : {false, true}) {
        if (!(example.*form) || (backward && example.leaves.empty())) continue;
        const auto label =
            name + (dtype == at::kFloat ? "/fp32/" : "/bf16/") + form_name + (backward ? "/both" : "/forward");
        const auto run = [make, dtype, member = form, backward](benchmark::State& state) {
          const auto operation = make(dtype);
          measure(state, operation.*member, operation.leaves, backward);
        };
        benchmark::RegisterBenchmark(label.c_str(), run)->Unit(benchmark::kMillisecond)->UseRealTime();
      }
  }
}

}  // namespace switchyard::bench

int main(int argc, char** argv) {
  switchyard::keep_freed_memory();  // as the program does
  benchmark::Initialize(&argc, argv);
  switchyard::bench::add_layers();
  switchyard::bench::add_attention();
  switchyard::bench::add_optimizers();
  benchmark::RunSpecifiedBenchmarks();
}
