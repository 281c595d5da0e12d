#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

constexpr int64_t kRows = 37;

std::vector<float> Means(Backend& backend, std::vector<float>& x, int64_t width, int64_t parts) {
  std::vector<float> out(kRows * parts, -1);
  backend.BlockMeans(
      {.x = MatrixView<float>(x.data(), kRows, width * parts), .out = {out.data(), kRows, parts}});
  return out;
}

std::vector<float> Cosines(Backend& backend, std::vector<float>& x, int64_t n,
                           const std::vector<float>& norms, std::vector<float> dots) {
  const auto num_cols = static_cast<int64_t>(norms.size());
  const auto num_rows = static_cast<int64_t>(dots.size()) / num_cols;
  backend.Cosines({.x = MatrixView<float>(x.data(), num_rows, n),
                   .norms = norms.data(),
                   .dots = {dots.data(), num_rows, num_cols}});
  return dots;
}

TEST(BlockMeansTest, AgreesWithTheReferenceAndHasTheSameBitsEverywhere) {
  ReferenceBackend reference;
  const auto backends = AllCpuBackends();
  for (const int64_t parts : {1, 6, 16}) {
    for (const int64_t width : {1, 8, 13, 32, 100}) {
      std::vector<float> x = RandomFloats(width, kRows * parts * width);
      const std::vector<float> expected = Means(reference, x, width, parts);
      const std::vector<float> first = Means(*backends[0], x, width, parts);
      for (const auto& backend : backends) {
        EXPECT_TRUE(SameBits(Means(*backend, x, width, parts), first)) << backend->isa();
      }
      // At most width roundings of partial sums, which are at most width times the largest value.
      const double tolerance = std::ldexp(6.0 * static_cast<double>(width), -24);
      for (size_t i = 0; i < first.size(); ++i) ASSERT_NEAR(first[i], expected[i], tolerance);
    }
  }
}

TEST(CosinesTest, AgreesWithTheReferenceAndHasTheSameBitsEverywhere) {
  ReferenceBackend reference;
  const auto backends = AllCpuBackends();
  for (const int64_t n : {1, 7, 32, 100, 256}) {
    std::vector<float> x = RandomFloats(n, kRows * n);
    std::vector<float> norms = RandomFloats(n + 1, 6);
    for (float& norm : norms) norm = std::abs(norm);
    norms[2] = 0;
    const std::vector<float> dots = RandomFloats(n + 2, kRows * 6);
    const std::vector<float> expected = Cosines(reference, x, n, norms, dots);
    const std::vector<float> first = Cosines(*backends[0], x, n, norms, dots);
    for (const auto& backend : backends) {
      EXPECT_TRUE(SameBits(Cosines(*backend, x, n, norms, dots), first)) << backend->isa();
    }
    for (size_t i = 0; i < first.size(); ++i) {
      if (i % 6 == 2) {
        ASSERT_EQ(first[i], 0);
      }
      // n / 8 roundings in the sum of squares, which the root halves, and five after it.
      ASSERT_NEAR(first[i], expected[i], std::ldexp(8 + n / 8, -24) * std::abs(expected[i]));
    }
  }
}

TEST(CosinesTest, ARowOfZerosHasZerosAndOneWithoutALengthFails) {
  const float huge = std::numeric_limits<float>::max();
  std::vector<float> x = {0, 0, huge, 1, INFINITY, 1, NAN, 1};
  ReferenceBackend reference;
  std::vector<Backend*> all = {&reference};
  const auto backends = AllCpuBackends();
  for (const auto& backend : backends) all.push_back(backend.get());
  for (Backend* backend : all) {
    const auto cosines = Cosines(*backend, x, 2, {1, 0}, {0, 0, 1, 1, 1, 1, 1, 1});
    EXPECT_EQ(cosines[0], 0);
    EXPECT_EQ(cosines[1], 0);
    for (size_t i = 2; i < cosines.size(); ++i) EXPECT_FALSE(std::isfinite(cosines[i])) << i;
  }
}

}  // namespace
}  // namespace gatehouse
