#include "proto/message_yaml.h"

#include <cmath>
#include <limits>
#include <string>

#include "gatehouse/v1/admin.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

v1::RoutingPolicy Read(const std::string& yaml) {
  v1::RoutingPolicy policy;
  EXPECT_EQ(MessageFromYaml(yaml, policy), absl::OkStatus()) << yaml;
  return policy;
}

std::string ErrorOf(const std::string& yaml) {
  v1::RoutingPolicy policy;
  const absl::Status status = MessageFromYaml(yaml, policy);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << yaml;
  return std::string(status.message());
}

TEST(MessageFromYamlTest, ReadsEveryKindOfField) {
  const v1::RoutingPolicy policy = Read(R"(
version: 9007199254740993          # beyond what a double holds
default_mode: Isolated             # an enum in any case
devices: {count: 2, expert_device: [0, 1, 1, 0], throughput: [1.5, 1e3]}
isolated:
  policy: threshold
  bound_decode: yes
  exempt_layers: {}
  thresholds:
  - {layer: 3, experts: [-.inf, .inf, .nan, 0.25]}
)");
  EXPECT_EQ(policy.version(), 9007199254740993);
  EXPECT_EQ(policy.default_mode(), v1::Routing::ISOLATED);
  EXPECT_THAT(policy.devices().expert_device(), ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(policy.devices().throughput(), ElementsAre(1.5, 1000));
  EXPECT_TRUE(policy.isolated().bound_decode());
  EXPECT_TRUE(policy.isolated().has_exempt_layers());
  EXPECT_FALSE(policy.has_shared());
  const auto& experts = policy.isolated().thresholds(0).experts();
  ASSERT_EQ(experts.size(), 4);
  EXPECT_EQ(experts[0], -std::numeric_limits<float>::infinity());
  EXPECT_EQ(experts[1], std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(experts[2]));
  EXPECT_EQ(experts[3], 0.25F);
}

TEST(MessageFromYamlTest, WhatIsInQuotesIsText) {
  EXPECT_EQ(Read("shared: {policy: \"1.5\", calibration_file: 'true'}").shared().policy(), "1.5");
  EXPECT_EQ(Read("shared: {calibration_file: 'true'}").shared().calibration_file(), "true");
  EXPECT_EQ(Read("shared: {calibration_file: \"a\\\"b\\\\c\\td\"}").shared().calibration_file(),
            "a\"b\\c\td");
}

TEST(MessageFromYamlTest, NullIsAFieldThatIsNotSet) {
  EXPECT_FALSE(Read("{version: 1, shared: ~, isolated: }").has_shared());
}

TEST(MessageFromYamlTest, NamesWhatIsWrong) {
  EXPECT_THAT(ErrorOf("shared: {polcy: switch}"), HasSubstr("polcy"));
  EXPECT_THAT(ErrorOf("version: 1\nversion: 2"), HasSubstr("version: given twice"));
  EXPECT_THAT(ErrorOf("default_mode: loose"), HasSubstr("loose"));
  EXPECT_THAT(ErrorOf("version: 9223372036854775808"), HasSubstr("version"));
  EXPECT_THAT(ErrorOf("version: 1.5"), HasSubstr("1.5"));
  EXPECT_THAT(ErrorOf("shared: [1]"), HasSubstr("shared"));
  EXPECT_THAT(ErrorOf("version: 1\nshared: {policy: \"x"), StartsWith("line 2"));
  for (const char* const text : {"", "- 1", "text", "12"}) {
    EXPECT_EQ(ErrorOf(text), "not a map of fields") << text;
  }
}

TEST(MessageFromYamlTest, DoesNotFollowWhatHasNoEnd) {
  EXPECT_EQ(ErrorOf("a: " + std::string(20, '[') + std::string(20, ']')), "nested too deeply");
  EXPECT_THAT(ErrorOf("a: " + std::string(100'000, '[')), StartsWith("line 1"));
  EXPECT_EQ(ErrorOf("a: &a [*a]"), "nested too deeply");
  // Ten aliases of ten aliases of ten ...
  std::string bomb = "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += "x" + std::to_string(i) + ": &x" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) bomb += (k > 0 ? ", *x" : "*x") + std::to_string(i - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(ErrorOf(bomb), StartsWith("aliases unfold to more than "));
}

TEST(MessageToYamlTest, IsReadBackAsTheSameMessage) {
  v1::RoutingPolicy policy;
  policy.set_version(int64_t{1} << 60);
  policy.set_default_mode(v1::Routing::SHARED);
  policy.mutable_devices()->set_count(3);
  v1::BoundedRouting& shared = *policy.mutable_shared();
  shared.set_policy("locmoe_plus");
  shared.set_expert_factor(0.1);
  shared.set_calibration_file("a: \"b\" #c \\ \n\x01 \xC3\xA9 'true'");
  shared.set_eager(false);
  shared.mutable_exempt_layers();
  v1::LayerThresholds& thresholds = *shared.add_thresholds();
  thresholds.set_layer(0);
  thresholds.add_experts(0.1F);
  thresholds.add_experts(-std::numeric_limits<float>::infinity());
  const std::string yaml = MessageToYaml(policy);
  const v1::RoutingPolicy read = Read(yaml);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(policy, read)) << yaml;
  EXPECT_THAT(yaml, HasSubstr("\nshared:\n  policy: locmoe_plus\n"));
}

TEST(MessageToYamlTest, TextThatLooksLikeSomethingElseStaysText) {
  for (const char* const text :
       {"true", "1.5", "~", "null", ".inf", "", " x ", "- a", "{", "0x10"}) {
    v1::BoundedRouting bounded;
    bounded.set_calibration_file(text);
    v1::BoundedRouting read;
    const std::string yaml = MessageToYaml(bounded);
    ASSERT_EQ(MessageFromYaml(yaml, read), absl::OkStatus()) << yaml;
    EXPECT_EQ(read.calibration_file(), text) << yaml;
  }
}

}  // namespace
}  // namespace gatehouse
