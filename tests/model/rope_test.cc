#include "engine/model/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "engine/model/model_config.h"
#include "nlohmann/json.hpp"
#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

using nlohmann::json;

RopeConfig Parse(const json& config) {
  const absl::StatusOr<ModelConfig> parsed = ParseModelConfig(config.dump(), "config.json");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? parsed->attention.rope : RopeConfig{.rotary_dim = 2};
}

// Numbers of make_rope_golden.py. torch's powf is within one unit in the last place of the exact
// power, ours is exact and then rounded; the reciprocal and the yarn blend (three more roundings
// each side) carry that on.
TEST(ComputeRopeFrequenciesTest, EqualsWhatTransformersComputes) {
  constexpr double kUlp = 0x1p-23;
  const json golden = json::parse(ReadFile(GATEHOUSE_SOURCE_DIR "/tests/model/rope_golden.json"));
  ASSERT_GE(golden.size(), 17u);
  for (const auto& [name, expected] : golden.items()) {
    SCOPED_TRACE(name);
    const RopeFrequencies rope = ComputeRopeFrequencies(Parse(expected["config"]));
    EXPECT_DOUBLE_EQ(rope.attention_factor, expected["attention_factor"].get<double>());
    const json& bits = expected["inv_freq_bits"];
    ASSERT_EQ(rope.inv_freq.size(), bits.size());
    for (size_t i = 0; i < bits.size(); ++i) {
      const float value = std::bit_cast<float>(bits[i].get<uint32_t>());
      EXPECT_NEAR(rope.inv_freq[i], value, 3 * kUlp * value) << "channel " << i;
    }
  }
}

TEST(ComputeRopeFrequenciesTest, RotatesTheFirstPairOneRadianAPosition) {
  const RopeFrequencies rope = ComputeRopeFrequencies({.rotary_dim = 4, .theta = 100});
  ASSERT_EQ(rope.inv_freq.size(), 2u);
  EXPECT_EQ(rope.inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(rope.inv_freq[1], 0.1f);
  EXPECT_EQ(rope.attention_factor, 1);
}

TEST(MaxContextTest, CountsTheStretchOfYarnAlone) {
  EXPECT_EQ(MaxContext({.type = RopeType::kDefault}, 4096), 4096);
  EXPECT_EQ(MaxContext({.type = RopeType::kLinear, .factor = 4}, 4096), 4096);
  const RopeConfig yarn = {.type = RopeType::kYarn, .factor = 4, .original_max_positions = 32768};
  EXPECT_EQ(MaxContext(yarn, 40960), 131072);   // published: the maximum is not stretched
  EXPECT_EQ(MaxContext(yarn, 262144), 262144);  // or more than stretched
}

TEST(MaxContextTest, StaysWithinTheLargestPosition) {
  const RopeConfig yarn = {
      .type = RopeType::kYarn, .factor = 1e6, .original_max_positions = kMaxPositions};
  EXPECT_EQ(MaxContext(yarn, 4096), kMaxPositions);
}

}  // namespace
}  // namespace gatehouse
