#include "engine/model/weight_loader.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

// More positions than one slab holds, and the last slab not full.
TEST(LoadRopeTableTest, HoldsCosinesAndSinesOfEveryPosition) {
  constexpr int64_t kNumPositions = 9001;
  constexpr int kRotaryDim = 6, kHalf = kRotaryDim / 2;
  const RopeConfig config{.rotary_dim = kRotaryDim, .theta = 100};
  ReferenceBackend backend;
  const absl::StatusOr<Buffer> table = LoadRopeTable(config, kNumPositions, backend);
  ASSERT_TRUE(table.ok()) << table.status();
  const float* values = table->as<float>();
  for (int64_t position = 0; position < kNumPositions; ++position) {
    for (int i = 0; i < kHalf; ++i) {
      // The angle's own rounding: 2^-24 of at most 9,000 radians.
      const double angle = static_cast<double>(position) * std::pow(100, -2.0 * i / kRotaryDim);
      const double tolerance = angle * 0x1p-22 + 0x1p-23;
      ASSERT_NEAR(values[position * kRotaryDim + i], std::cos(angle), tolerance) << position;
      ASSERT_NEAR(values[position * kRotaryDim + kHalf + i], std::sin(angle), tolerance);
    }
  }
}

}  // namespace
}  // namespace gatehouse
