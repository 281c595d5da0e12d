#include "engine/moe/routing_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace gatehouse {
namespace {

TEST(ValidatePolicyTest, RefusesWhatIsNoBound) {
  for (const double factor : {0.0, -1.0, static_cast<double>(NAN), 1e9}) {
    RoutingPolicy policy;
    policy.capacity.factor = factor;
    EXPECT_EQ(ValidatePolicy(policy, {.num_experts = 4}).code(), absl::StatusCode::kInvalidArgument)
        << factor;
  }
  RoutingPolicy covered;
  EXPECT_TRUE(ValidatePolicy(covered, {.num_experts = 4}).ok());
  EXPECT_THAT(
      std::string(ValidatePolicy(covered, {.num_experts = 4, .has_shared_expert = true}).message()),
      testing::HasSubstr("coverage: on, expected off"));
  covered.coverage = false;
  EXPECT_TRUE(ValidatePolicy(covered, {.num_experts = 4, .has_shared_expert = true}).ok());
  EXPECT_THAT(std::string(ValidateThresholds(std::vector<float>{0.1f}, 4).message()),
              testing::HasSubstr("got 1, expected one for each of 4"));
  EXPECT_FALSE(ValidateThresholds(std::vector<float>{0.1f, NAN}, 2).ok());
}

}  // namespace
}  // namespace gatehouse
