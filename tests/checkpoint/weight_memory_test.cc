#include "checkpoint/weight_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/fill.h>
#include <ATen/ops/min.h>
#include <ATen/ops/sum.h>
#include <gmock/gmock.h>

#include <fstream>

#include "base/error.h"

namespace switchyard {
namespace {

// Resident memory of this process, in bytes.
int64_t resident() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  file >> pages >> pages;
  return pages * 4096;
}

TEST(WeightMemory, TakesMemoryOnlyWhereItIsWritten) {
  const int64_t before = resident();
  const auto table = map_zeros({64, 1024, 16384}, at::kBFloat16);  // 2 GiB
  auto part = table.select(0, 40).narrow(0, 3, 100);
  prefer_huge_pages(part);
  part.fill_(1.5);
  EXPECT_LT(resident() - before, 64 << 20);
  EXPECT_EQ(part.sum(at::kDouble).item<double>(), 1.5 * 100 * 16384);
  EXPECT_EQ(table.select(0, 40)[2].abs().sum().item<double>() + table.select(0, 40)[103].abs().sum().item<double>(), 0);
}

TEST(WeightMemory, IsGivenBackWithoutItsNeighbours) {
  const auto table = map_zeros({3, 64 << 18}, at::kFloat).fill_(1.0);       // 3 x 64 MiB, of 4 bytes a value
  const auto middle = table.flatten().narrow(0, (64 << 18) + 5, 64 << 18);  // no page begins where it does
  const int64_t before = resident();
  give_back(middle);
  EXPECT_GT(before - resident(), 60 << 20);
  const auto flat = table.flatten();
  EXPECT_EQ(flat.narrow(0, 0, (64 << 18) + 5).min().item<float>(), 1);
  EXPECT_EQ(flat.narrow(0, (128 << 18) + 5, (64 << 18) - 5).min().item<float>(), 1);
  middle.fill_(3.0);
  EXPECT_EQ(flat.narrow(0, (64 << 18) + 4, 3).sum().item<float>(), 1 + 3 + 3);
}

TEST(WeightMemory, AnArenasTensorsLieApartAndOutliveIt) {
  at::Tensor first, second;
  {
    WeightArena arena(3 * WeightArena::kAlignment);
    first = arena.take({5}, at::kFloat);
    second = arena.take({2, 16}, at::kBFloat16);
    EXPECT_THROW(arena.take({65}, at::kByte), Error);
    EXPECT_EQ(arena.take({64}, at::kByte).numel(), 64);
  }
  first.fill_(7);
  second.fill_(-2);
  EXPECT_EQ(first.sum().item<float>(), 35);
  EXPECT_EQ(second.sum().item<float>(), -64);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second.data_ptr()) % WeightArena::kAlignment, 0u);
}

}  // namespace
}  // namespace switchyard
