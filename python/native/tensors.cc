#include "native/tensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace nb = nanobind;

namespace switchyard {
namespace {

nb::dlpack::dtype dtype_of(at::ScalarType type) {
  using Code = nb::dlpack::dtype_code;
  const auto code = type == at::kBFloat16 ? Code::Bfloat
                    : type == at::kLong   ? Code::Int
                    : type == at::kBool   ? Code::Bool
                                          : Code::Float;
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * at::elementSize(type)), 1};
}

}  // namespace

nb::object to_torch(const at::Tensor& tensor) {
  if (!tensor.defined()) return nb::none();
  const auto type = tensor.scalar_type();
  SY_CHECK(at::isFloatingType(type) || type == at::kLong || type == at::kBool, "no Python tensor of dtype ", type);
  auto held = std::make_unique<at::Tensor>(tensor.detach());
  const auto& shared = *held;
  const nb::capsule owner(held.get(), [](void* pointer) noexcept { delete static_cast<at::Tensor*>(pointer); });
  held.release();
  const std::vector<size_t> shape(shared.sizes().begin(), shared.sizes().end());
  const auto strides = shared.strides();
  const bool is_cpu = shared.device().is_cpu();
  return nb::cast(nb::ndarray<nb::pytorch>(shared.mutable_data_ptr(), shape.size(), shape.data(), owner, strides.data(),
                                           dtype_of(type), is_cpu ? nb::device::cpu::value : nb::device::cuda::value,
                                           is_cpu ? 0 : shared.device().index()),
                  nb::rv_policy::reference);
}

at::Tensor to_tensor(const std::optional<IdTable>& table, at::Device device) {
  if (!table) return {};
  auto tensor = at::empty({static_cast<int64_t>(table->shape(0)), static_cast<int64_t>(table->shape(1))}, at::kLong);
  std::copy_n(table->data(), table->size(), tensor.mutable_data_ptr<int64_t>());
  return tensor.to(device);
}

}  // namespace switchyard
