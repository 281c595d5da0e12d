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

// A tensor as a checkpoint stores it, or a part of one, in host memory and at any alignment (the
// file format promises none), so read it by at() or memcpy, never through a cast pointer. Weights
// are [num_outputs, num_inputs]; a vector has num_rows 1. Contiguous and row-major unless it was
// cut out of, or turned from, another view.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  int64_t row_stride = 0;  // elements from one row to the next; 0: num_cols
  int64_t col_stride = 1;  // elements from one column to the next

  int64_t index(int64_t r, int64_t c) const {
    return r * (row_stride == 0 ? num_cols : row_stride) + c * col_stride;
  }
  // `count` rows from `first` on, each `step` after the one before.
  WeightView Rows(int64_t first, int64_t count, int64_t step = 1) const {
    return {At(first, 0), dtype, count, num_cols, index(step, 0), col_stride};
  }
  WeightView Cols(int64_t first, int64_t count, int64_t step = 1) const {
    return {At(0, first), dtype, num_rows, count, index(1, 0), col_stride * step};
  }
  WeightView Transposed() const {
    return {data, dtype, num_cols, num_rows, col_stride, index(1, 0)};
  }

  float at(int64_t r, int64_t c) const {
    const int64_t i = index(r, c);
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

  const void* At(int64_t r, int64_t c) const {
    return static_cast<const char*>(data) + index(r, c) * static_cast<int64_t>(DTypeBytes(dtype));
  }

  template <typename T>
  T Load(int64_t i) const {
    T value;
    std::memcpy(&value, static_cast<const char*>(data) + i * sizeof(T), sizeof(T));
    return value;
  }
};

}  // namespace gatehouse
