// Views on memory that somebody else owns. A view is a value: copy it freely, keep it no longer
// than its owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"

namespace gatehouse {

// Row-major [num_rows, num_cols]; row r starts at data + r * stride. On an accelerator `data` is a
// device address.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  int64_t stride = 0;  // elements from one row to the next, >= num_cols

  MatrixView() = default;
  MatrixView(T* data, int64_t num_rows, int64_t num_cols)
      : MatrixView(data, num_rows, num_cols, num_cols) {}
  MatrixView(T* data, int64_t num_rows, int64_t num_cols, int64_t stride)
      : data(data), num_rows(num_rows), num_cols(num_cols), stride(stride) {}
  // NOLINTNEXTLINE(google-explicit-constructor): a mutable view is a const view
  operator MatrixView<const T>() const { return {data, num_rows, num_cols, stride}; }

  T* row(int64_t r) const { return data + r * stride; }
  MatrixView FirstRows(int64_t count) const { return {data, count, num_cols, stride}; }
  MatrixView Cols(int64_t first, int64_t count) const {
    return {data + first, num_rows, count, stride};
  }
};

// A tensor as a checkpoint stores it, in host memory: contiguous, row-major, at any alignment (the
// file format promises none), so read it by at() or memcpy, never through a cast pointer. Weights
// are [num_outputs, num_inputs]; a vector has num_rows 1.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t num_rows = 0;
  int64_t num_cols = 0;

  float at(int64_t r, int64_t c) const {
    const int64_t i = r * num_cols + c;
    switch (dtype) {
      case DType::kF32:
        return Load<float>(i);
      case DType::kBF16:
        return BF16ToF32(Load<uint16_t>(i));
      case DType::kF16:
        return F16ToF32(Load<uint16_t>(i));
    }
    return 0;
  }

  template <typename T>
  T Load(int64_t i) const {
    T value;
    std::memcpy(&value, static_cast<const char*>(data) + i * sizeof(T), sizeof(T));
    return value;
  }
};

}  // namespace gatehouse
