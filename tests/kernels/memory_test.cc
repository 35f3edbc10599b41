// A lack of memory inside a kernel reaches its caller as std::bad_alloc, whichever allocation fails, ours or that of
// the engine that generates products: an exception that tried to leave a parallel region would end the program.
#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <numeric>
#include <vector>

#include "kernels/attention.h"
#include "kernels/brgemm.h"
#include "kernels/cross_entropy.h"
#include "kernels/hidden_layer.h"
#include "kernels/noise.h"
#include "kernels/product.h"
#include "kernels/rms_norm.h"
#include "kernels/routing.h"
#include "kernels/stream.h"

namespace {

std::atomic<int64_t> allocations_left = -1;  // aligned ones until they fail; negative: none fails
std::atomic<int64_t> products_left = -1;     // likewise

}  // namespace

// The linker sends the kernels' calls of at::native::cpublas::brgemm on f32 here (--wrap).
extern "C" {
void __real__ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool,
                                                          const float*, const float*, float*, bool);
void __wrap__ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb,
                                                          int64_t ldc, bool add, const float* a, const float* b,
                                                          float* c, bool is_vnni) {
  if (products_left >= 0 && products_left.fetch_sub(1) <= 0) throw std::bad_alloc();
  __real__ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb(m, n, k, lda, ldb, ldc, add, a, b, c, is_vnni);
}
}

// The kernels' scratch memory is all that this program allocates with an alignment.
void* operator new(std::size_t size, std::align_val_t alignment) {
  if (allocations_left >= 0 && allocations_left.fetch_sub(1) <= 0) {
    allocations_left = 0;
    throw std::bad_alloc();
  }
  void* data = nullptr;
  if (posix_memalign(&data, static_cast<std::size_t>(alignment), size) != 0) throw std::bad_alloc();
  return data;
}
void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }

namespace switchyard::kernels {
namespace {

// Lets the first, the second, ... allocation of `call` fail until it needs no more.
void expect_bad_alloc(const char* what, const std::function<void()>& call) {
  SCOPED_TRACE(what);
  int64_t failures = 0;
  for (bool done = false; !done; ++failures) {
    ASSERT_LT(failures, 200) << "always another allocation";
    allocations_left = failures;
    try {
      call();
      done = true;
    } catch (const std::bad_alloc&) {
    }
    allocations_left = -1;
  }
  EXPECT_GT(failures, 1) << "allocated nothing: the test proves nothing";
}

// The same, and for the engine's own memory at its first product.
void expect_bad_alloc_of_products_too(const char* what, const std::function<void()>& call) {
  expect_bad_alloc(what, call);
  products_left = 0;
  EXPECT_THROW(call(), std::bad_alloc) << what;
  products_left = -1;
}

std::vector<float> numbers(int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) * 0.05f - 0.4f;
  return values;
}

class Memory : public testing::Test {
 protected:
  void SetUp() override {
    if (!brgemm_available_f32()) GTEST_SKIP() << "this processor has no f32 brgemm";
    omp_set_num_threads(2);
  }
};

TEST_F(Memory, Products) {
  const int64_t rows = 160, inner = 128, columns = 192;
  const std::vector<int64_t> num_rows = {rows};
  const auto a = numbers(rows * inner), b = numbers(inner * columns), grad = numbers(rows * columns);
  std::vector<float> c(static_cast<size_t>(rows * columns)), sums(static_cast<size_t>(columns * inner));
  expect_bad_alloc_of_products_too("multiply", [&] {
    multiply<float, float>({.a = a.data(),
                            .b = b.data(),
                            .c = c.data(),
                            .num_rows = num_rows,
                            .inner = inner,
                            .columns = columns - 10,
                            .transposed = true});
  });
  expect_bad_alloc_of_products_too("multiply_columns", [&] {
    multiply_columns<float>(
        {.grad = grad.data(), .rows = a.data(), .c = sums.data(), .num_rows = num_rows, .out = columns, .in = inner});
  });
}

TEST_F(Memory, CrossEntropy) {
  const int64_t rows = 32, vocab = 300, d_model = 64;
  std::vector<int64_t> label(static_cast<size_t>(rows));
  std::iota(label.begin(), label.end(), int64_t{0});
  const VocabularyProblem problem{rows, vocab, d_model, 0.5f, label.data()};
  const auto hidden = numbers(rows * d_model), weight = numbers(vocab * d_model);
  std::vector<float> log_partition(static_cast<size_t>(rows)), label_logit = log_partition, largest = log_partition;
  std::vector<float> grad_hidden(hidden.size()), grad_weight(weight.size());
  expect_bad_alloc_of_products_too("forward", [&] {
    cross_entropy_forward(problem, hidden.data(), weight.data(), log_partition.data(), label_logit.data(),
                          largest.data());
  });
  expect_bad_alloc_of_products_too("backward", [&] {
    cross_entropy_backward(problem, hidden.data(), weight.data(), log_partition.data(), 1.0f, 0.1f, grad_hidden.data(),
                           grad_weight.data());
  });
}

// Their buffers stay with the threads, so that each kernel fails once for each of them.
TEST_F(Memory, Attention) {
  const int64_t batch = 4, heads = 2, length = 150, d_kv = 40, width = heads * d_kv;
  const auto q = numbers(batch * length * width), k = numbers(batch * length * width),
             v = numbers(batch * length * width), bias = numbers(heads * (2 * length - 1));
  std::vector<float> out(q.size()), d_q(q.size()), d_k(q.size()), d_v(q.size()),
      sums(static_cast<size_t>(batch * heads * length)), d_bias(static_cast<size_t>(batch * heads * (2 * length - 1)));
  const auto rows = [&](auto& values) { return Rows{values.data(), length * width, width}; };
  AttentionArguments<float> arguments{.batch = batch,
                                      .num_heads = heads,
                                      .query_length = length,
                                      .key_length = length,
                                      .d_kv = d_kv,
                                      .q = rows(q),
                                      .k = rows(k),
                                      .v = rows(v),
                                      .bias = bias.data()};
  expect_bad_alloc_of_products_too("forward", [&] { attention_forward(arguments, rows(out), sums.data()); });
  const Rows<const float> out_rows{out.data(), length * width, width};
  expect_bad_alloc_of_products_too("backward", [&] {
    attention_backward(arguments, out_rows, sums.data(), rows(q), rows(d_q), rows(d_k), rows(d_v), d_bias.data());
  });
  arguments.query_length = 4;
  expect_bad_alloc("decode", [&] { attention_decode(arguments, rows(out)); });
}

TEST_F(Memory, Rows) {
  const int64_t rows = 256, width = 256;
  const auto x = numbers(rows * width), scale = numbers(width);
  std::vector<float> y(x.size()), grad_scale(scale.size());
  const RowDropout dropout{.rate = 0.1f};
  expect_bad_alloc("rms_norm_backward", [&] {
    rms_norm_backward(x.data(), scale.data(), x.data(), y.data(), grad_scale.data(), rows, width, 1e-6f);
  });
  expect_bad_alloc("drop_channels", [&] { drop_channels(x.data(), dropout, y.data(), rows, width); });
  expect_bad_alloc("multiply_noise",
                   [&] { multiply_noise({}, 0, nullptr, x.data(), y.data(), rows, width, {.spread = 0.1f}); });
  expect_bad_alloc("hidden_layer",
                   [&] { hidden_layer<float>(Activation::kSilu, x.data(), nullptr, dropout, rows, width, y.data()); });
  expect_bad_alloc("hidden_layer_backward", [&] {
    hidden_layer_backward<float>(Activation::kSilu, x.data(), nullptr, dropout, x.data(), rows, width, y.data(),
                                 nullptr, nullptr);
  });
  std::vector<int64_t> choice(static_cast<size_t>(rows));
  std::vector<float> log_partition(choice.size()), entropy(choice.size());
  expect_bad_alloc("route_forward", [&] {
    route_forward(x.data(), rows, width, y.data(), choice.data(), log_partition.data(), entropy.data());
  });
  expect_bad_alloc("top_choices", [&] { top_choices(x.data(), rows, width, 1, choice.data()); });
}

}  // namespace
}  // namespace switchyard::kernels
