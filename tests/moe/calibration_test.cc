#include "engine/moe/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace gatehouse {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Calibration Example() {
  return {.model_hash = "0123456789abcdef",
          .num_experts = 3,
          .affinity = Affinity::kShare,
          .drop_share = 0.25,
          .num_tokens = 32768,
          .loss = 3.87,
          .expert_rows_per_second = 1e5,
          .layers = {{.thresholds = {0.1f, 0.3f, 0.25f}, .delta = 0.2, .effective_dim = 40.5},
                     {.thresholds = {0, -1, 1}, .bound_cost = 0.4, .exempt = true}},
          .quality = {{.policy = "device",
                       .factor = 0.75,
                       .loss_difference = 0.004,
                       .kl = 0.01,
                       .drop_share = 0.25,
                       .gate_mass_kept = 0.9}}};
}

// The message for the example with one value changed.
std::string Refusal(const std::string& pointer, const json& value) {
  json document = json::parse(FormatCalibration(Example()));
  document[json::json_pointer(pointer)] = value;
  return std::string(ParseCalibration(document.dump(), "c.json").status().message());
}

std::string Mismatch(const CalibratedModel& model) {
  return std::string(CheckCalibration(Example(), model, "c.json").message());
}

TEST(CalibrationTest, IsReadAsItWasWritten) {
  const absl::StatusOr<Calibration> read = ParseCalibration(FormatCalibration(Example()), "c.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(FormatCalibration(*read), FormatCalibration(Example()));
  EXPECT_THAT(read->layers[0].thresholds, ElementsAre(0.1f, 0.3f, 0.25f));
  EXPECT_EQ(read->layers[0].effective_dim, 40.5);
  EXPECT_TRUE(read->layers[1].exempt);
  EXPECT_EQ(read->affinity, Affinity::kShare);
  EXPECT_EQ(read->quality[0].policy, "device");
  EXPECT_EQ(read->expert_rows_per_second, 1e5);
}

TEST(CalibrationTest, WhatIsNoCalibrationIsRefusedByField) {
  EXPECT_THAT(Refusal("/format", "other"), HasSubstr("c.json: format: got \"other\""));
  EXPECT_THAT(Refusal("/version", 2), HasSubstr("version: got 2, expected 1"));
  EXPECT_THAT(Refusal("/affinity", "logit"), HasSubstr("affinity: got \"logit\""));
  EXPECT_THAT(Refusal("/drop_share", 1.5), HasSubstr("drop_share: got 1.5"));
  EXPECT_THAT(Refusal("/num_experts", 0), HasSubstr("num_experts: got 0"));
  EXPECT_THAT(Refusal("/layers/0/thresholds", {1, 2}), HasSubstr("a list of 3 numbers"));
  EXPECT_THAT(Refusal("/layers/0/thresholds/1", nullptr),
              HasSubstr("thresholds[1]: got null, expected a finite number"));
  EXPECT_THAT(Refusal("/layers/0/thresholds/2", 1e300), HasSubstr("expected a finite number"));
  EXPECT_THAT(Refusal("/layers/1/exempt", 1), HasSubstr("exempt: got 1"));
  EXPECT_THAT(Refusal("/layers/1/extra", 1), HasSubstr("extra"));
  EXPECT_THAT(Refusal("/quality/0/gate_mass_kept", "all"), HasSubstr("gate_mass_kept: got"));
}

// The writer of another program may say NaN, which is no JSON.
TEST(CalibrationTest, NotANumberIsRefused) {
  std::string text = FormatCalibration(Example());
  text.replace(text.find("40.5"), 4, "NaN");
  EXPECT_FALSE(ParseCalibration(text, "c.json").ok());
  EXPECT_FALSE(ParseCalibration("", "c.json").ok());
  EXPECT_THAT(std::string(LoadCalibration("/nowhere/c.json").status().message()),
              HasSubstr("/nowhere/c.json: no such file"));
}

TEST(CalibrationTest, AnotherModelIsRefused) {
  const CalibratedModel same = {"0123456789abcdef", 2, 3};
  EXPECT_TRUE(CheckCalibration(Example(), same, "c.json").ok());
  EXPECT_THAT(Mismatch({"0123456789abcdee", 2, 3}),
              HasSubstr("got 0123456789abcdef, expected 0123456789abcdee"));
  EXPECT_THAT(Mismatch({same.hash, 3, 3}), HasSubstr("got 2, expected one for each of 3"));
  EXPECT_THAT(Mismatch({same.hash, 2, 4}), HasSubstr("num_experts: got 3, expected 4"));
}

}  // namespace
}  // namespace gatehouse
