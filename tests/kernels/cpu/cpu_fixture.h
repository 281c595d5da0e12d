// What the tests of kernels/cpu share: random tensors in every checkpoint type, the value a weight
// has after rounding to a format, and the parameter "each instruction set of this machine".
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa_list.h"
#include "kernels/cpu/packed.h"

namespace gatehouse::cpu {

// Row-major [num_rows, num_cols].
struct Matrix {
  Matrix(int64_t num_rows, int64_t num_cols, float value = 0)
      : num_rows(num_rows),
        num_cols(num_cols),
        values(static_cast<size_t>(num_rows * num_cols), value) {}

  float& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * num_cols + c)]; }
  const float& at(int64_t r, int64_t c) const {
    return values[static_cast<size_t>(r * num_cols + c)];
  }
  MatrixView<float> view() { return {values.data(), num_rows, num_cols}; }
  MatrixView<const float> view() const { return {values.data(), num_rows, num_cols}; }

  int64_t num_rows, num_cols;
  std::vector<float> values;
};

inline Matrix RandomMatrix(int64_t num_rows, int64_t num_cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Matrix matrix(num_rows, num_cols);
  for (float& value : matrix.values) value = uniform(random);
  return matrix;
}

// A checkpoint's tensor of uniform values in [-1, 1), or in f16 of multiples of 2^-10, which are
// exact there. It starts `misalignment` bytes past a boundary.
class Tensor {
 public:
  Tensor(DType dtype, int64_t num_rows, int64_t num_cols, uint64_t seed, size_t misalignment = 0)
      : values_(RandomMatrix(num_rows, num_cols, seed)), dtype_(dtype), offset_(misalignment) {
    bytes_.resize(values_.values.size() * DTypeBytes(dtype) + offset_);
    char* out = bytes_.data() + offset_;
    for (float& value : values_.values) {
      uint32_t bits = 0;
      if (dtype == DType::kF32) {
        std::memcpy(&bits, &value, 4);
      } else if (dtype == DType::kBF16) {
        value = BF16ToF32(static_cast<uint16_t>(bits = F32ToBF16(value)));
      } else {
        value = std::trunc(value * 1024) / 1024;
        bits = F16Bits(value);
      }
      std::memcpy(out, &bits, DTypeBytes(dtype));
      out += DTypeBytes(dtype);
    }
  }

  WeightView view() const {
    return {bytes_.data() + offset_, dtype_, values_.num_rows, values_.num_cols};
  }
  // The value that `format` gives the weight.
  float at(int64_t r, int64_t c, WeightFormat format) const {
    const float value = values_.at(r, c);
    return format == WeightFormat::kF32 ? value : BF16ToF32(F32ToBF16(value));
  }

 private:
  // Of a multiple of 2^-10 below 1 in magnitude.
  static uint16_t F16Bits(float value) {
    if (value == 0) return 0;
    int exponent;
    const float fraction = std::frexp(std::fabs(value), &exponent);  // [0.5, 1)
    const auto mantissa = static_cast<uint16_t>(fraction * 2048) & 0x3ff;
    return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | ((exponent + 14) << 10) | mantissa);
  }

  Matrix values_;
  DType dtype_;
  size_t offset_;
  std::vector<char> bytes_;
};

class IsaTest : public testing::TestWithParam<const IsaKernels*> {
 protected:
  const IsaKernels& isa() const { return *GetParam(); }
};

inline std::string IsaName(const testing::TestParamInfo<const IsaKernels*>& param) {
  return param.param->name;
}

#define GATEHOUSE_FOR_EACH_ISA(suite) \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(SupportedIsas()), IsaName)

}  // namespace gatehouse::cpu
