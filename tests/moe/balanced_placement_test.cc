#include "engine/moe/balanced_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

// The least imbalance of all placements with at most as many copies: every one is tried that can
// still be better.
class BruteForce {
 public:
  explicit BruteForce(const PlacementProblem& problem)
      : problem_(problem),
        free_(problem.slots),
        device_loads_(problem.slots.size(), 0),
        num_copies_left_(static_cast<int>(problem.loads.size()) + problem.num_replicas) {
    mean_ = std::accumulate(problem.loads.begin(), problem.loads.end(), 0.0) /
            std::accumulate(problem.throughput.begin(), problem.throughput.end(), 0.0);
    Try(0);
  }
  double best() const { return best_; }

 private:
  // Experts 0 to e - 1 are placed.
  void Try(int e) {
    double slowest = 0;
    for (size_t d = 0; d < free_.size(); ++d) {
      slowest = std::max(slowest, device_loads_[d] / problem_.throughput[d]);
    }
    const auto num_experts = static_cast<int>(problem_.loads.size());
    if (slowest / mean_ >= best_ || num_copies_left_ < num_experts - e) return;
    if (e == num_experts) {
      best_ = slowest / mean_;
      return;
    }
    for (int set = 1; set < 1 << free_.size(); ++set) {
      const std::vector<double> before = device_loads_;
      const std::vector<int32_t> free = free_;
      const int num_copies = __builtin_popcount(set);
      bool room = true;
      for (size_t d = 0; d < free_.size(); ++d) {
        if ((set >> d & 1) == 0) continue;
        room = room && free_[d]-- > 0;
        device_loads_[d] += problem_.loads[e] / num_copies;
      }
      num_copies_left_ -= num_copies;
      if (room) Try(e + 1);
      num_copies_left_ += num_copies;
      device_loads_ = before;
      free_ = free;
    }
  }

  const PlacementProblem& problem_;
  std::vector<int32_t> free_;
  std::vector<double> device_loads_;
  int num_copies_left_;
  double mean_ = 1;
  double best_ = HUGE_VAL;
};

struct Ratios {
  double mean = 0, worst = 0;
};

// The imbalance over the least possible, of 6 experts on 3 devices or 5 on 4.
Ratios RatiosToBest(bool alike) {
  constexpr int kNumCases = 300;
  std::mt19937 random(11);
  Ratios ratios;
  for (int i = 0; i < kNumCases; ++i) {
    const int num_devices = 3 + i % 2;
    PlacementProblem problem;
    problem.slots.assign(num_devices, 2 + static_cast<int32_t>(random() % 3));
    for (int e = 0; e < 6 - i % 2; ++e) problem.loads.push_back(1 + random() % 100);
    for (int d = 0; d < num_devices; ++d) {
      problem.throughput.push_back(alike ? 1 : 1 + static_cast<double>(random() % 4));
    }
    const int spare = num_devices * problem.slots[0] - static_cast<int>(problem.loads.size());
    problem.num_replicas = std::min(spare, static_cast<int>(random() % 4));
    const double ratio =
        PredictedImbalance(*BalancedPlacement(problem), problem.loads) / BruteForce(problem).best();
    EXPECT_GE(ratio, 1 - 1e-9);
    ratios.mean += ratio / kNumCases;
    ratios.worst = std::max(ratios.worst, ratio);
  }
  return ratios;
}

TEST(BalancedPlacementTest, IsNearTheBestOfAllPlacements) {
  const Ratios alike = RatiosToBest(true);
  EXPECT_LT(alike.mean, 1.02);
  EXPECT_LT(alike.worst, 1.3);
  const Ratios different = RatiosToBest(false);
  EXPECT_LT(different.mean, 1.025);
  EXPECT_LT(different.worst, 1.2);
}

// Half of expert 0 on the slow device would take 5 units of time there, all of it 2 on the fast.
TEST(BalancedPlacementTest, NoCopyWhereItIsWorseThanNone) {
  const PlacementProblem problem = {.loads = {10, 1},
                                    .throughput = {1, 5},
                                    .slots = {2, 2},
                                    .nodes = {},
                                    .num_groups = 1,
                                    .num_replicas = 2};
  const ExpertPlacement placement = *BalancedPlacement(problem);
  EXPECT_THAT(placement.devices_of(0), ElementsAre(1));
  EXPECT_THAT(placement.devices_of(1), ElementsAre(0));
}

// A placement without copies is as balanced; but within a step two copies share what one cannot.
TEST(BalancedPlacementTest, UsesItsCopiesWhereThatCostsNothing) {
  const PlacementProblem problem = {.loads = {3, 3, 3, 3},
                                    .throughput = {1, 1},
                                    .slots = {4, 4},
                                    .nodes = {},
                                    .num_groups = 1,
                                    .num_replicas = 2};
  const ExpertPlacement placement = *BalancedPlacement(problem);
  EXPECT_EQ(placement.num_copies(), 6);
  EXPECT_DOUBLE_EQ(PredictedImbalance(placement, problem.loads), 1);
}

TEST(BalancedPlacementTest, RefusesWhatEplbRefuses) {
  const PlacementProblem problem = {.loads = {10, 1}, .throughput = {1}, .slots = {1}, .nodes = {}};
  EXPECT_EQ(BalancedPlacement(problem).status(), EplbPlacement(problem).status());
  EXPECT_FALSE(BalancedPlacement(problem).ok());
}

// Worked by hand: the devices have 9 and 3; 5 for 2 makes 6 and 6, as would 4 for 1.
TEST(RefinePlacementTest, ExchangesWhereNothingHasRoom) {
  PlacementProblem problem{
      .loads = {5, 4, 2, 1}, .throughput = {1, 1}, .slots = {2, 2}, .nodes = {}};
  const ExpertPlacement linear = LinearPlacement(4, 2);
  ExpertPlacement refined = RefinePlacement(problem, linear);
  EXPECT_THAT(refined.copy_devices, ElementsAre(1, 0, 0, 1));
  problem.nodes = {0, 1};  // nothing leaves its node
  EXPECT_EQ(RefinePlacement(problem, linear).copy_devices, linear.copy_devices);
}

// Device 0 is alone on its node and stays the busiest: expert 0 may not leave, 2 may be shared.
TEST(RefinePlacementTest, SpendsTheCopiesThatAreLeft) {
  const PlacementProblem problem = {.loads = {6, 1, 2},
                                    .throughput = {1, 1, 1},
                                    .slots = {1, 2, 2},
                                    .nodes = {0, 1, 1},
                                    .num_groups = 1,
                                    .num_replicas = 1};
  const ExpertPlacement refined = RefinePlacement(problem, PlacementOf({{0}, {1}, {1}}, {1, 1, 1}));
  EXPECT_THAT(refined.devices_of(0), ElementsAre(0));
  EXPECT_THAT(refined.devices_of(1), ElementsAre(1));
  EXPECT_THAT(refined.devices_of(2), ElementsAre(1, 2));
}

TEST(RefinePlacementTest, KeepsTheTermsAndNeverGetsWorse) {
  std::mt19937 random(3);
  for (int i = 0; i < 1000; ++i) {
    SCOPED_TRACE(i);
    const int num_experts = 1 + static_cast<int>(random() % 20);
    const int num_devices = 1 + static_cast<int>(random() % 8);
    PlacementProblem problem;
    for (int e = 0; e < num_experts; ++e) problem.loads.push_back(random() % 50);
    for (int d = 0; d < num_devices; ++d) {
      problem.throughput.push_back(1 + static_cast<double>(random() % 3));
      problem.slots.push_back((num_experts + num_devices - 1) / num_devices +
                              static_cast<int32_t>(random() % 4));
    }
    problem.num_replicas = static_cast<int>(random() % 4);
    ExpertPlacement start = RoundRobinPlacement(num_experts, num_devices);
    start.throughput = problem.throughput;
    const ExpertPlacement refined = RefinePlacement(problem, start);
    EXPECT_LE(PredictedImbalance(refined, problem.loads), PredictedImbalance(start, problem.loads));
    EXPECT_LE(refined.num_copies(), num_experts + problem.num_replicas);
    std::vector<int32_t> num_held(num_devices, 0);
    for (int e = 0; e < num_experts; ++e) {
      const auto devices = refined.devices_of(e);
      ASSERT_FALSE(devices.empty());
      EXPECT_TRUE(std::is_sorted(devices.begin(), devices.end(), std::less_equal<>()));
      for (const int32_t d : devices) EXPECT_LE(++num_held[d], problem.slots[d]);
    }
    EXPECT_EQ(RefinePlacement(problem, start).copy_devices, refined.copy_devices);
  }
}

}  // namespace
}  // namespace gatehouse
