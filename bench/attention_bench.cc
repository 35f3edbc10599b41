// The fused attention beside what ATen offers for the same: scaled_dot_product_attention, and matmul, softmax, matmul.
// All with T5's bias; backward with its gradient. GF/s count 4 query_length key_length d_kv operations a head
// forwards, 2.5 times that backwards, for every form, so they compare as times do.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <benchmark/benchmark.h>
#include <limits.h>
#include <malloc.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/attention.h"

namespace switchyard {
namespace {

constexpr int64_t kWidth = 64;  // d_kv

struct Problem {
  at::Tensor q, k, v, bias, d_out;
  int64_t heads;
};

using Form = at::Tensor (*)(const Problem&);

at::Tensor split_heads(const at::Tensor& x) { return x.unflatten(2, {-1, kWidth}).transpose(1, 2); }

at::Tensor expanded_bias(const Problem& problem) { return problem.bias.unfold(1, problem.k.size(1), 1).flip(1); }

at::Tensor fused(const Problem& problem) {
  return ops::attention(problem.q, problem.k, problem.v, problem.bias, {}, {.num_heads = problem.heads});
}

at::Tensor composed(const Problem& problem) {
  const auto products = at::matmul(split_heads(problem.q), split_heads(problem.k).transpose(2, 3));
  const auto probabilities = at::softmax((products + expanded_bias(problem)).to(at::kFloat), -1);
  return at::matmul(probabilities.to(problem.v.scalar_type()), split_heads(problem.v)).transpose(1, 2).flatten(2);
}

at::Tensor sdpa(const Problem& problem) {
  const auto bias = expanded_bias(problem).unsqueeze(0).to(problem.q.scalar_type());
  return at::scaled_dot_product_attention(split_heads(problem.q), split_heads(problem.k), split_heads(problem.v), bias,
                                          /*dropout_p=*/0.0, /*is_causal=*/false, /*scale=*/1.0)
      .transpose(1, 2)
      .flatten(2);
}

// Arguments of a run: batch, heads, query_length, key_length.
void run(benchmark::State& state, Form form, at::ScalarType dtype, bool backward) {
  const int64_t batch = state.range(0), heads = state.range(1), queries = state.range(2), keys = state.range(3);
  const auto rows = [&](int64_t length) { return at::randn({batch, length, heads * kWidth}).mul_(0.4).to(dtype); };
  const Problem problem{.q = rows(queries).requires_grad_(backward),
                        .k = rows(keys).requires_grad_(backward),
                        .v = rows(keys).requires_grad_(backward),
                        .bias = at::randn({heads, queries + keys - 1}).requires_grad_(backward),
                        .d_out = rows(queries),
                        .heads = heads};
  for (auto _ : state) {
    const auto out = form(problem);
    if (backward) torch::autograd::grad({out}, {problem.q, problem.k, problem.v, problem.bias}, {problem.d_out});
  }
  const double operations = 4.0 * static_cast<double>(batch * heads * queries * keys * kWidth) * (backward ? 3.5 : 1.0);
  state.counters["GF/s"] = benchmark::Counter(operations * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  using namespace switchyard;
  mallopt(M_MMAP_MAX, 0);  // as the program does: large blocks stay in the heap
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  benchmark::Initialize(&argc, argv);
  const std::pair<const char*, Form> forms[] = {{"fused", fused}, {"composed", composed}, {"sdpa", sdpa}};
  for (const auto dtype : {at::kBFloat16, at::kFloat})
    for (const bool backward : {false, true})
      for (const auto& [name, form] : forms) {
        const std::string label =
            std::string(dtype == at::kFloat ? "f32/" : "bf16/") + name + (backward ? "/forward_backward" : "/forward");
        benchmark::RegisterBenchmark(label.c_str(), run, form, dtype, backward)
            ->Args({8, 4, 512, 512})
            ->Args({2, 12, 512, 512})
            ->Args({8, 4, 114, 512})
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
  benchmark::RunSpecifiedBenchmarks();
}
