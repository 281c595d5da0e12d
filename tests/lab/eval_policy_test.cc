#include "engine/lab/eval_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();
const PolicyModel kModel = {
    .num_moe_layers = 2, .num_experts = 4, .top_k = 2, .renormalises = true};

absl::StatusOr<PinnedPolicy> Make(const std::string& words, const PolicyPlace& place = {},
                                  const PolicyModel& model = kModel) {
  return MakePinnedPolicy({.name = "p", .words = words}, model, place);
}

std::string Refusal(const std::string& words, const PolicyPlace& place = {}) {
  return std::string(Make(words, place).status().message());
}

TEST(EvalPolicyTest, TheFactorStandsWhereTheWordFIs) {
  const EvalPolicy policy = *ParseEvalPolicy("device: gamma_dev F devices 2 reroute 1");
  EXPECT_EQ(policy.name, "device");
  EXPECT_TRUE(policy.has_factor());
  EXPECT_FALSE(ParseEvalPolicy("fixed: gamma 2 order F2")->has_factor());
  const PinnedPolicy pinned = *MakePinnedPolicy(policy, kModel, {.factor = 0.75});
  EXPECT_EQ(pinned.policy.capacity.device_factor, 0.75);
  EXPECT_FALSE(pinned.policy.capacity.factor.has_value());
  EXPECT_EQ(pinned.placement.num_devices, 2);
  EXPECT_EQ(pinned.policy.reroute, 1);
  const PinnedPolicy unbounded = *MakePinnedPolicy(policy, kModel, {.factor = kInf});
  EXPECT_FALSE(unbounded.policy.capacity.device_factor.has_value());
}

TEST(EvalPolicyTest, TakesFromTheModelWhatNoPolicyDecides) {
  EXPECT_TRUE(Make("gamma 1")->policy.renormalise_after_drop);
  EXPECT_FALSE(Make("gamma 1 after_drop leave")->policy.renormalise_after_drop);
  EXPECT_TRUE(Make("gamma 1")->policy.coverage);
  PolicyModel shared = kModel;
  shared.has_shared_expert = true;
  EXPECT_FALSE(Make("gamma 1", {}, shared)->policy.coverage);
  EXPECT_THAT(Make("gamma 1")->layer_exempt, ElementsAre(0, 0));
  EXPECT_THAT(Make("gamma 1", {.exempt_layers = {1}})->layer_exempt, ElementsAre(0, 1));
}

TEST(EvalPolicyTest, ThresholdsAreGivenOrCalibrated) {
  EXPECT_THAT(Make("mode threshold thresholds 0.5")->thresholds[1],
              ElementsAre(.5f, .5f, .5f, .5f));
  const Calibration calibration = {
      .layers = {{.thresholds = {1, 2, 3, 4}}, {.thresholds = {5, 6, 7, 8}}}};
  EXPECT_THAT(
      Make("mode threshold thresholds calibrated", {.calibration = &calibration})->thresholds[1],
      ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(Refusal("mode threshold thresholds calibrated"), HasSubstr("expected --calibration"));
  EXPECT_THAT(Refusal("mode threshold"), HasSubstr("expected thresholds"));
  EXPECT_THAT(Refusal("mode threshold thresholds nan"), HasSubstr("policy p:"));
  EXPECT_THAT(Refusal("mode threshold thresholds 1,2"), HasSubstr("policy p:"));
}

TEST(EvalPolicyTest, RefusesWhatIsNoPolicy) {
  EXPECT_FALSE(ParseEvalPolicy("gamma 1").ok());
  EXPECT_FALSE(ParseEvalPolicy(": gamma 1").ok());
  for (const char* words :
       {"gamma 0", "gamma -1", "gamma nan", "gamma", "gama 1", "devices 0 place 1", "place 0,1",
        "reroute -1", "order best", "mode block", "throughput 0"}) {
    EXPECT_THAT(Refusal(words), HasSubstr("p")) << words;
    EXPECT_FALSE(Make(words).ok()) << words;
  }
  EXPECT_THAT(Refusal("shared_expert on"), HasSubstr("the model decides"));
  EXPECT_THAT(Refusal("gamma 1", {.exempt_layers = {2}}), HasSubstr("got 2, expected one of 2"));
}

TEST(EvalPolicyTest, ThePoliciesOfTheCurveAreValid) {
  for (const EvalPolicy& policy : CurvePolicies(Affinity::kCosine)) {
    EXPECT_TRUE(policy.has_factor());
    const auto pinned = MakePinnedPolicy(policy, kModel, {.factor = 1});
    ASSERT_TRUE(pinned.ok()) << pinned.status();
    EXPECT_EQ(pinned->affinity, Affinity::kCosine);
    EXPECT_FALSE(pinned->policy.coverage);
    EXPECT_FALSE(pinned->policy.renormalise_after_drop);
    EXPECT_EQ(pinned->policy.capacity.min_mean_load, 0);
    EXPECT_EQ(pinned->placement.num_devices, policy.name == "score + reroute" ? 1 : 4);
  }
}

}  // namespace
}  // namespace gatehouse
