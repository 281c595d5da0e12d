// Owner of one piece of a back end's memory. Move-only; gives the memory back when it goes. Any
// thread.
#pragma once

#include <cstddef>
#include <utility>

namespace gatehouse {

class Buffer {
 public:
  using Release = void (*)(void* data, size_t num_bytes);

  Buffer() = default;
  Buffer(void* data, size_t num_bytes, Release release)
      : data_(data), num_bytes_(num_bytes), release_(release) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(num_bytes_, other.num_bytes_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_, num_bytes_);
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t num_bytes() const { return num_bytes_; }

 private:
  void* data_ = nullptr;
  size_t num_bytes_ = 0;
  Release release_ = nullptr;
};

}  // namespace gatehouse
