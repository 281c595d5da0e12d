#include "engine/lab/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

const TraceHeader kHeader = {.num_experts = 4, .num_moe_layers = 1, .top_k = 2, .num_ranked = 4};

// The six tokens of docs/routing.md's first worked example.
TraceStep WorkedExample() {
  TraceStep step{
      .ranked_ids = {0, 1, 2, 3, 0, 1, 2, 3, 0, 2, 1, 3, 0, 3, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3},
      .gate = {.50f, .30f, .15f, .05f, .45f, .35f, .12f, .08f, .60f, .20f, .10f, .10f,
               .40f, .30f, .25f, .05f, .55f, .32f, .08f, .05f, .35f, .33f, .22f, .10f}};
  for (uint32_t row = 0; row < 6; ++row) step.rows.push_back({.request = 0, .position = row});
  return step;
}

RouteTotals Simulate(const std::string& words, bool decode = false) {
  const PolicyModel model = {.num_moe_layers = 1, .num_experts = 4, .top_k = 2};
  auto policy = MakePinnedPolicy({"p", words}, model, {});
  EXPECT_TRUE(policy.ok()) << policy.status();
  policy->bound_decode = false;
  Simulator simulator(kHeader, *policy, LayerPlacements(policy->placement, 1));
  TraceStep step = WorkedExample();
  for (TraceRow& row : step.rows) row.decode = decode;
  EXPECT_TRUE(simulator.Add(step).ok());
  return simulator.meter().totals();
}

TEST(SimulatorTest, DecidesTheWorkedExample) {
  const std::string words = "gamma 1 nbar_min 0 coverage off rho 0";
  const RouteTotals dropped = Simulate(words);
  EXPECT_EQ(dropped.report.dropped, 4);
  EXPECT_NEAR(dropped.report.gate_mass_kept, 3.15, 1e-5);
  EXPECT_NEAR(dropped.report.gate_mass, 4.65, 1e-5);
  const RouteTotals moved = Simulate(words + " reroute 2");
  EXPECT_EQ(moved.report.rerouted, 4);
  EXPECT_NEAR(moved.report.gate_mass_kept, 3.47, 1e-5);
  EXPECT_DOUBLE_EQ(moved.mean_max_load(), 1);
}

TEST(SimulatorTest, DecodeIsExactUnlessAsked) {
  EXPECT_EQ(Simulate("gamma 1 nbar_min 0 coverage off", true).report.dropped, 0);
}

TEST(AddLoadsTest, CountsWhatRowsChose) {
  const TraceHeader header = {.num_experts = 3, .num_moe_layers = 2, .top_k = 1, .num_ranked = 2};
  TraceStep step{.rows = std::vector<TraceRow>(2),
                 .ranked_ids = {0, 1, 0, 2, /* layer 1: */ 2, 0, -1, -1}};
  LayerLoads loads(2, std::vector<int64_t>(3, 10));
  AddLoads(header, step, loads);
  EXPECT_THAT(loads, ElementsAre(ElementsAre(12, 10, 10), ElementsAre(10, 10, 11)));
}

TEST(SimulatorTest, TwoHundredExpertsOnSixtyFourRanks) {
  const TraceHeader header = {
      .num_experts = 256, .num_moe_layers = 2, .top_k = 8, .num_ranked = 16};
  TraceStep step;
  for (uint32_t row = 0; row < 300; ++row)
    step.rows.push_back({.request = row / 10, .position = row % 10});
  for (int layer = 0; layer < 2; ++layer) {
    for (int row = 0; row < 300; ++row) {
      for (int rank = 0; rank < 16; ++rank) {  // skewed: the first experts are wanted most
        step.ranked_ids.push_back((row * row % 40 + rank * 5) % 256);
        step.gate.push_back(0.2f / static_cast<float>(rank + 1));
      }
    }
  }
  const PolicyModel model = {.num_moe_layers = 2, .num_experts = 256, .top_k = 8};
  const auto run = [&](const std::string& words, int num_replicas) {
    const PinnedPolicy policy = *MakePinnedPolicy({"p", words}, model, {});
    LayerLoads loads(2, std::vector<int64_t>(256, 0));
    AddLoads(header, step, loads);
    auto placements = LayerPlacements::Make(
        {.name = num_replicas > 0 ? "eplb" : "linear", .num_replicas = num_replicas},
        std::vector<double>(64, 1), loads);
    Simulator simulator(header, policy, *std::move(placements));
    EXPECT_TRUE(simulator.Add(step).ok());
    return simulator.meter().totals();
  };
  const RouteTotals exact = run("gamma off devices 64", 0);
  const RouteTotals copied = run("gamma off devices 64", 32);
  const RouteTotals bounded = run("gamma_dev 1.25 devices 64 nbar_min 0 coverage off", 0);
  EXPECT_EQ(exact.report.dropped, 0);
  EXPECT_LT(copied.mean_max_device_load(), exact.mean_max_device_load());
  EXPECT_GT(bounded.report.dropped, 0);
  EXPECT_LE(bounded.mean_max_device_load(), 1.25 + 64.0 / 2400);  // places are rounded up
}

}  // namespace
}  // namespace gatehouse
