#include <cmath>

#include "kernels/cpu/work_split.h"
#include "tests/kernels/cpu/cpu_fixture.h"

namespace gatehouse::cpu {
namespace {

using GemmTest = IsaTest;
GATEHOUSE_FOR_EACH_ISA(GemmTest);

constexpr int64_t kAwkward[] = {1, 2, 3, 31, 32, 33, 96, 100, 129};

struct Product {
  WeightFormat format = WeightFormat::kF32;
  const float* bias = nullptr;
  float scale = 1;
  bool accumulate = false;
  std::vector<int32_t> row_ids;
  int num_threads = 1;
};

void Multiply(const IsaKernels& isa, MatrixView<const float> x, const PackedMatrix& weights,
              const Product& product, MatrixView<float> out) {
  ThreadPool pool(product.num_threads);
  OpScratch scratch;
  Gemm({isa, pool, scratch}, {.x = x,
                              .row_ids = product.row_ids,
                              .weights = &weights,
                              .bias = product.bias,
                              .scale = product.scale,
                              .accumulate = product.accumulate,
                              .out = out});
}

std::unique_ptr<CpuPackedMatrix> PackOne(const Tensor& tensor, WeightFormat format) {
  ThreadPool pool(1);
  const WeightView stacked[] = {tensor.view()};
  return *Pack(pool, stacked, format);
}

// One chain of K fused multiply-adds rounds K times, each time by at most 2^-24 of a partial sum,
// and these stay below sum |x w|; bias, scale and accumulate round once more each.
void ExpectProduct(const Matrix& x, const Tensor& weights, const Product& product,
                   const Matrix& before, const Matrix& out) {
  for (int64_t r = 0; r < out.num_rows; ++r) {
    const int64_t row = product.row_ids.empty() ? r : product.row_ids[static_cast<size_t>(r)];
    for (int64_t n = 0; n < out.num_cols; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < x.num_cols; ++k) {
        const double term = double{x.at(row, k)} * weights.at(n, k, product.format);
        sum += term;
        magnitude += std::fabs(term);
      }
      if (product.bias != nullptr) sum += product.bias[n], magnitude += std::fabs(product.bias[n]);
      sum *= product.scale, magnitude *= std::fabs(product.scale);
      if (product.accumulate) sum += before.at(r, n), magnitude += std::fabs(before.at(r, n));
      const double tolerance = static_cast<double>(x.num_cols + 3) * 0x1p-24 * magnitude;
      ASSERT_NEAR(out.at(r, n), sum, tolerance) << "row " << r << " output " << n;
    }
  }
}

TEST_P(GemmTest, EqualsDoubleLoopsForAwkwardShapesAndFormats) {
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    for (const int64_t n : kAwkward) {
      for (const int64_t k : kAwkward) {
        SCOPED_TRACE(testing::Message() << WeightFormatName(format) << " n " << n << " k " << k);
        const Tensor weights(DType::kF32, n, k, 1000 * n + k);
        const Matrix x = RandomMatrix(7, k, n + k);
        Matrix out(7, n, -1);
        const Product product{.format = format};
        Multiply(isa(), x.view(), *PackOne(weights, format), product, out.view());
        ExpectProduct(x, weights, product, out, out);
      }
    }
  }
}

TEST_P(GemmTest, AddsBiasThenScalesThenAddsWhatOutHolds) {
  const Tensor weights(DType::kF32, 45, 33, 1);
  const Matrix x = RandomMatrix(9, 33, 2), bias = RandomMatrix(1, 45, 3);
  const Matrix before = RandomMatrix(9, 45, 4);
  for (const bool accumulate : {false, true}) {
    Matrix out = before;
    const Product product{.format = WeightFormat::kBF16,
                          .bias = bias.values.data(),
                          .scale = accumulate ? 0.22f : 1.0f,
                          .accumulate = accumulate};
    Multiply(isa(), x.view(), *PackOne(weights, product.format), product, out.view());
    ExpectProduct(x, weights, product, before, out);
  }
}

TEST_P(GemmTest, TakesRowsByIndexAndInAnyStride) {
  const Tensor weights(DType::kF32, 40, 36, 5);
  const Matrix wide = RandomMatrix(10, 50, 6);
  Matrix x(10, 36);
  for (int64_t r = 0; r < 10; ++r) {
    for (int64_t c = 0; c < 36; ++c) x.at(r, c) = wide.at(r, c + 7);
  }
  const Product product{.row_ids = {9, 0, 3, 3, 8, 1, 2}};
  Matrix out(7, 60, 99);
  Multiply(isa(), wide.view().Cols(7, 36), *PackOne(weights, product.format), product,
           out.view().Cols(11, 40));
  Matrix inside(7, 40);
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t c = 0; c < 60; ++c) {
      if (c >= 11 && c < 51) {
        inside.at(r, c - 11) = out.at(r, c);
      } else {
        ASSERT_EQ(out.at(r, c), 99) << "wrote outside its columns";
      }
    }
  }
  ExpectProduct(x, weights, product, inside, inside);
}

TEST_P(GemmTest, OfEachHeadGivesTheBitsOfAProductOfItsOwn) {
  constexpr int kNumHeads = 5, kInputs = 19, kOutputs = 40, kXDim = 23, kOutDim = 43;
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    std::vector<std::unique_ptr<PackedMatrix>> weights;
    for (int h = 0; h < kNumHeads; ++h) {
      weights.push_back(PackOne(Tensor(DType::kF32, kOutputs, kInputs, h), format));
    }
    for (const int num_rows : {1, 7, 130}) {
      const Matrix x = RandomMatrix(num_rows, kNumHeads * kXDim, 6);
      Matrix expected(num_rows, kNumHeads * kOutDim, 99);
      for (int h = 0; h < kNumHeads; ++h) {
        Multiply(isa(), x.view().Cols(h * kXDim, kInputs), *weights[h], {},
                 expected.view().Cols(h * kOutDim, kOutputs));
      }
      for (const int num_threads : {1, 3}) {
        Matrix out(num_rows, kNumHeads * kOutDim, 99);
        ThreadPool pool(num_threads);
        OpScratch scratch;
        HeadGemm({isa(), pool, scratch}, {.x = x.view(), .weights = weights, .out = out.view()});
        EXPECT_EQ(out.values, expected.values) << num_rows << " rows";
      }
    }
  }
}

// With an odd number of inputs, bf16 weights have a zero beside what lies behind the row: 0 *
// infinity must not get into the sum.
TEST_P(GemmTest, IgnoresWhatLiesBehindARow) {
  const Tensor weights(DType::kBF16, 32, 5, 7);
  Matrix x = RandomMatrix(3, 6, 8);
  for (int64_t r = 0; r < 3; ++r) x.at(r, 5) = INFINITY;
  Matrix out(3, 32);
  Multiply(isa(), x.view().Cols(0, 5), *PackOne(weights, WeightFormat::kBF16), {}, out.view());
  for (const float value : out.values) ASSERT_TRUE(std::isfinite(value));
}

TEST_P(GemmTest, KeepsARowsBitsForEveryNumberOfRowsPositionAndThreads) {
  constexpr int64_t kInputs = 97, kOutputs = 70, kPool = 100;
  const Tensor weights(DType::kF32, kOutputs, kInputs, 9);
  const Matrix x = RandomMatrix(kPool, kInputs, 10);
  std::mt19937 random(11);
  for (const WeightFormat format : kWeightFormats) {
    const auto packed = PackOne(weights, format);
    Matrix alone(kPool, kOutputs);
    for (int32_t r = 0; r < kPool; ++r) {
      Multiply(isa(), x.view(), *packed, {.row_ids = {r}},
               {&alone.at(r, 0), 1, kOutputs, kOutputs});
    }
    for (const int num_threads : {1, 2, 4}) {
      for (int num_rows = 1; num_rows <= 64; ++num_rows) {
        Product product{.num_threads = num_threads};
        for (int r = 0; r < num_rows; ++r) product.row_ids.push_back(random() % kPool);
        Matrix out(num_rows, kOutputs);
        Multiply(isa(), x.view(), *packed, product, out.view());
        for (int r = 0; r < num_rows; ++r) {
          ASSERT_EQ(std::memcmp(&out.at(r, 0), &alone.at(product.row_ids[r], 0), kOutputs * 4), 0)
              << "row " << r << " of " << num_rows << ", " << num_threads << " threads";
        }
      }
    }
  }
}

// Rows so long that they do not stay in the cache together are cut into ranges, with and without an
// index list.
TEST_P(GemmTest, TakesMoreRowsThanTheCacheHolds) {
  constexpr int64_t kInputs = 3001;
  const int64_t num_rows = MaxRangeRows(kInputs) * 2 + 1;
  const Tensor weights(DType::kF32, 3, kInputs, 12);
  const Matrix x = RandomMatrix(num_rows, kInputs, 13);
  Product product{.num_threads = 2};
  for (const bool indexed : {false, true}) {
    if (indexed) {
      for (int64_t r = num_rows; r-- > 0;) product.row_ids.push_back(static_cast<int32_t>(r));
    }
    Matrix out(num_rows, 3);
    Multiply(isa(), x.view(), *PackOne(weights, product.format), product, out.view());
    ExpectProduct(x, weights, product, out, out);
  }
}

TEST_P(GemmTest, HasTheBitsOfThePortableInstructionSet) {
  for (const WeightFormat format : kWeightFormats) {
    for (const int64_t k : kAwkward) {
      const Tensor weights(DType::kF32, 41, k, k);
      const Matrix x = RandomMatrix(11, k, k + 1), bias = RandomMatrix(1, 41, k + 2);
      Matrix ours(11, 41, 0.5f), portable(11, 41, 0.5f);
      const auto packed = PackOne(weights, format);
      const Product product{.bias = bias.values.data(), .accumulate = true};
      Multiply(isa(), x.view(), *packed, product, ours.view());
      Multiply(PortableKernels(), x.view(), *packed, product, portable.view());
      ASSERT_EQ(std::memcmp(ours.values.data(), portable.values.data(), ours.values.size() * 4), 0)
          << WeightFormatName(format) << " k " << k;
    }
  }
}

TEST_P(GemmTest, NoRowsIsNoWork) {
  const Tensor weights(DType::kF32, 8, 8, 1);
  const Matrix x(0, 8);
  Matrix out(0, 8);
  Multiply(isa(), x.view(), *PackOne(weights, WeightFormat::kF32), {}, out.view());
}

TEST(GemmDeathTest, AbortsOnShapesThatDoNotFit) {
  const Tensor weights(DType::kF32, 8, 8, 1);
  const Matrix x(2, 9);
  Matrix out(2, 8);
  const auto packed = PackOne(weights, WeightFormat::kF32);
  EXPECT_DEATH(Multiply(PortableKernels(), x.view(), *packed, {}, out.view()), "expected");
}

}  // namespace
}  // namespace gatehouse::cpu
