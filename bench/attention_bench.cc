// Attention with T5's bias and its gradient; ATen's is scaled_dot_product_attention with the bias as a mask.
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "bench/operation.h"
#include "ops/attention.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kWidth = 64;  // d_kv

at::Tensor split_heads(const at::Tensor& x) { return x.unflatten(2, {-1, kWidth}).transpose(1, 2); }

Operation attention(int64_t batch, int64_t heads, int64_t queries, int64_t keys, at::ScalarType dtype) {
  const auto rows = [&](int64_t length) {
    return at::randn({batch, length, heads * kWidth}).mul_(0.4).to(dtype).requires_grad_();
  };
  const auto q = rows(queries), k = rows(keys), v = rows(keys);
  const auto bias = at::randn({heads, queries + keys - 1}).requires_grad_();
  const Form kernel = [=] { return ops::attention(q, k, v, bias, {}, {.num_heads = heads}); };
  return {.kernel = kernel,
          .plain = in_plain_form(kernel),
          .aten =
              [=] {
                const auto mask = bias.unfold(1, keys, 1).flip(1).unsqueeze(0).to(q.scalar_type());
                return at::scaled_dot_product_attention(split_heads(q), split_heads(k), split_heads(v), mask,
                                                        /*dropout_p=*/0.0, /*is_causal=*/false, /*scale=*/1.0)
                    .transpose(1, 2)
                    .flatten(2);
              },
          .leaves = {q, k, v, bias}};
}

}  // namespace

void add_attention() {
  const auto add = [](const char* name, int64_t batch, int64_t heads, int64_t queries, int64_t keys) {
    add_operation(name, {at::kBFloat16, at::kFloat},
                  [=](at::ScalarType dtype) { return attention(batch, heads, queries, keys, dtype); });
  };
  add("attention 2 x 12 heads, 512 x 512", 2, 12, 512, 512);
  add("attention 2 x 12 heads, 114 x 512", 2, 12, 114, 512);
}

}  // namespace switchyard::bench
