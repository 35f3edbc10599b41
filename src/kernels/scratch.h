// Aligned working memory of a kernel call.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace switchyard::kernels {

// `size` elements on a 64-byte boundary, not initialised.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(static_cast<T*>(::operator new (sizeof(T) * static_cast<size_t>(size), std::align_val_t{64}))) {}
  T* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete (data, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace switchyard::kernels
