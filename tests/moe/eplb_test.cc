#include "engine/moe/eplb.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Le;

// The experts of each device, ascending.
std::vector<std::vector<int32_t>> ExpertsByDevice(const ExpertPlacement& placement) {
  std::vector<std::vector<int32_t>> experts(placement.num_devices);
  for (int e = 0; e < placement.num_experts(); ++e) {
    for (const int32_t d : placement.devices_of(e)) experts[d].push_back(e);
  }
  return experts;
}

// Of EPLB's array with two experts a device in a row.
std::vector<std::vector<int32_t>> PairsOf(const std::vector<int32_t>& physical_to_logical) {
  std::vector<std::vector<int32_t>> pairs;
  for (size_t i = 0; i < physical_to_logical.size(); i += 2) {
    pairs.push_back({std::min(physical_to_logical[i], physical_to_logical[i + 1]),
                     std::max(physical_to_logical[i], physical_to_logical[i + 1])});
  }
  return pairs;
}

PlacementProblem Alike(std::vector<double> loads, int num_devices, int32_t slots) {
  return {.loads = std::move(loads),
          .throughput = std::vector<double>(num_devices, 1),
          .slots = std::vector<int32_t>(num_devices, slots)};
}

std::string Refusal(const PlacementProblem& problem) {
  const auto placement = EplbPlacement(problem);
  EXPECT_EQ(placement.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(placement.status().message());
}

// The two layers of the README of deepseek-ai/EPLB, and what it says comes out.
TEST(EplbPlacementTest, DecidesThePublishedExample) {
  PlacementProblem problem = Alike({90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, 8, 2);
  problem.nodes = {0, 0, 0, 0, 1, 1, 1, 1};
  problem.num_groups = 4;
  problem.num_replicas = 4;
  EXPECT_EQ(ExpertsByDevice(*EplbPlacement(problem)),
            PairsOf({5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  problem.loads = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  EXPECT_EQ(ExpertsByDevice(*EplbPlacement(problem)),
            PairsOf({7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
}

// The published algorithm in its own terms: all devices alike, all counts divide.
struct Published {
  int num_nodes, num_devices, num_groups, num_slots;  // slots of one device

  // Every pack gets equally many.
  static std::vector<int> Pack(const std::vector<double>& weights, int num_packs) {
    std::vector<int> order(weights.size()), pack_of(weights.size()), num_items(num_packs, 0);
    std::vector<double> pack_weights(num_packs, 0);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return weights[a] > weights[b]; });
    for (const int item : order) {
      int best = -1;
      for (int p = 0; p < num_packs; ++p) {
        if (num_items[p] * num_packs == static_cast<int>(weights.size())) continue;
        if (best < 0 || pack_weights[p] < pack_weights[best]) best = p;
      }
      pack_of[item] = best;
      pack_weights[best] += weights[item];
      ++num_items[best];
    }
    return pack_of;
  }

  std::vector<std::vector<int32_t>> Devices(const std::vector<double>& loads) const {
    const auto num_experts = static_cast<int>(loads.size());
    const int group_size = num_experts / num_groups, per_node = num_devices / num_nodes;
    std::vector<double> group_loads(num_groups, 0);
    for (int e = 0; e < num_experts; ++e) group_loads[e / group_size] += loads[e];
    const std::vector<int> node_of = Pack(group_loads, num_nodes);
    std::vector<std::vector<int32_t>> devices(num_devices);
    for (int node = 0; node < num_nodes; ++node) {
      std::vector<int32_t> copies;
      for (int e = 0; e < num_experts; ++e) {
        if (node_of[e / group_size] == node) copies.push_back(e);
      }
      const std::vector<int32_t> experts = copies;
      const auto weight = [&](int32_t e) {
        return loads[e] / static_cast<double>(std::count(copies.begin(), copies.end(), e));
      };
      while (static_cast<int>(copies.size()) < per_node * num_slots) {
        copies.push_back(*std::max_element(experts.begin(), experts.end(),
                                           [&](int a, int b) { return weight(a) < weight(b); }));
      }
      std::vector<double> weights;
      for (const int32_t e : copies) weights.push_back(weight(e));
      const std::vector<int> device_of = Pack(weights, per_node);
      for (size_t i = 0; i < copies.size(); ++i) {
        devices[node * per_node + device_of[i]].push_back(copies[i]);
      }
    }
    for (std::vector<int32_t>& experts : devices) std::sort(experts.begin(), experts.end());
    return devices;
  }
};

TEST(EplbPlacementTest, IsThePublishedAlgorithmWhereThatNeverPutsTwoCopiesOnOneDevice) {
  std::mt19937 random(9);
  int num_same = 0;
  for (int i = 0; i < 1000; ++i) {
    SCOPED_TRACE(i);
    const int num_nodes = 1 << random() % 3, num_groups = num_nodes * (2 + random() % 3);
    const int num_devices = num_nodes * (2 + static_cast<int>(random() % 7));
    const int num_experts = num_groups * (2 + static_cast<int>(random() % 7));
    const int num_slots = (num_experts + num_devices - 1) / num_devices + random() % 2;
    if (num_slots < 2) continue;  // the original then numbers devices in its own way
    const Published published{num_nodes, num_devices, num_groups, num_slots};
    PlacementProblem problem = Alike({}, num_devices, num_slots);
    // No ties, which sorts decide: steps of one and a part that differs for every expert.
    for (int e = 0; e < num_experts; ++e) problem.loads.push_back(random() % 5000 + e / 1024.0);
    for (int d = 0; d < num_devices; ++d) problem.nodes.push_back(d * num_nodes / num_devices);
    problem.num_groups = num_groups;
    problem.num_replicas = num_devices * num_slots - num_experts;
    const std::vector<std::vector<int32_t>> expected = published.Devices(problem.loads);
    if (std::any_of(expected.begin(), expected.end(), [](const std::vector<int32_t>& experts) {
          return std::adjacent_find(experts.begin(), experts.end()) != experts.end();
        })) {
      continue;
    }
    ++num_same;
    EXPECT_EQ(ExpertsByDevice(*EplbPlacement(problem)), expected);
  }
  EXPECT_GT(num_same, 200);
}

// Worked by hand. 30 a copy of expert 0; then 20, 12, 10, 8, 5 to the device that has least.
TEST(EplbPlacementTest, CountsNeedNotDivide) {
  PlacementProblem problem = Alike({60, 20, 12, 10, 8, 5}, 4, 2);
  problem.num_replicas = 1;
  const ExpertPlacement placement = *EplbPlacement(problem);
  EXPECT_THAT(ExpertsByDevice(placement),
              ElementsAre(ElementsAre(0, 5), ElementsAre(0), ElementsAre(1, 4), ElementsAre(2, 3)));
  EXPECT_DOUBLE_EQ(PredictedImbalance(placement, problem.loads), 35 / (115.0 / 4));
}

TEST(EplbPlacementTest, AFasterDeviceGetsMore) {
  PlacementProblem problem = Alike({6, 6, 6, 6}, 2, 4);
  problem.throughput = {1, 3};
  const ExpertPlacement placement = *EplbPlacement(problem);
  EXPECT_EQ(ExpertsByDevice(placement)[1].size(), 3);
  EXPECT_DOUBLE_EQ(PredictedImbalance(placement, problem.loads), 1);
  EXPECT_THAT(placement.throughput, ElementsAre(1, 3));
}

TEST(EplbPlacementTest, ExpertsThatNobodyWantsAreSpread) {
  PlacementProblem problem = Alike(std::vector<double>(6, 0), 4, 4);
  problem.num_replicas = 2;
  const ExpertPlacement placement = *EplbPlacement(problem);
  EXPECT_THAT(ExpertsByDevice(placement), ::testing::Each(::testing::SizeIs(2)));
  EXPECT_EQ(placement.devices_of(0).size(), 2);
  EXPECT_EQ(placement.devices_of(1).size(), 2);  // not all copies of expert 0
}

// Groups stay whole on nodes of 5 and 3 slots; where the nodes do not divide them, they do not.
TEST(EplbPlacementTest, GroupsStayOnOneNode) {
  PlacementProblem problem = Alike({9, 8, 1, 1, 2, 2}, 4, 2);
  problem.nodes = {7, 7, 7, 9};
  problem.slots = {2, 2, 1, 3};
  problem.num_groups = 2;
  problem.num_replicas = 1;
  for (const std::vector<double>& loads :
       {std::vector<double>{9, 8, 1, 1, 2, 2}, {1, 1, 2, 9, 8, 2}}) {
    problem.loads = loads;
    const ExpertPlacement placement = *EplbPlacement(problem);
    for (const int first : {0, 3}) {
      const bool on_last = placement.devices_of(first).front() == 3;
      for (int e = first; e < first + 3; ++e) {
        for (const int32_t d : placement.devices_of(e)) EXPECT_EQ(d == 3, on_last);
      }
    }
  }
  problem.num_groups = 3;
  EXPECT_TRUE(EplbPlacement(problem).ok());
}

TEST(EplbPlacementTest, SaysWhatCannotBePlaced) {
  const PlacementProblem fits = Alike({1, 2, 3, 4, 5, 6}, 4, 2);
  PlacementProblem problem = fits;
  problem.slots = {2, 1, 1, 1};
  EXPECT_THAT(Refusal(problem), HasSubstr("got 5 on 4 devices, expected at least 6"));
  problem = fits;
  problem.num_replicas = 3;
  EXPECT_THAT(Refusal(problem), HasSubstr("got 3, expected 0 to 2"));
  problem.num_replicas = -1;
  EXPECT_THAT(Refusal(problem), HasSubstr("got -1, expected 0 to 2"));
  problem = fits;
  problem.slots[2] = 100;  // no device needs more slots than there are experts
  problem.num_replicas = 7;
  EXPECT_THAT(Refusal(problem), HasSubstr("got 7, expected 0 to 6"));
  problem = fits;
  problem.slots[1] = -1;
  EXPECT_THAT(Refusal(problem), HasSubstr("slots of device 1: got -1"));
  for (const double load : {-1.0, 1e17, std::nan("")}) {
    problem = fits;
    problem.loads[3] = load;
    EXPECT_THAT(Refusal(problem), HasSubstr("load of expert 3: got"));
  }
  for (const double throughput : {0.0, -2.0, HUGE_VAL, std::nan("")}) {
    problem = fits;
    problem.throughput[3] = throughput;
    EXPECT_THAT(Refusal(problem), HasSubstr("throughput of device 3: got"));
  }
  problem = fits;
  problem.num_groups = 4;
  EXPECT_THAT(Refusal(problem), HasSubstr("got 4, expected a divisor of 6"));
  problem = fits;
  problem.slots.pop_back();
  EXPECT_THAT(Refusal(problem), HasSubstr("got 3 and 0, expected one a device of 4"));
  EXPECT_THAT(Refusal({}), HasSubstr("got 0 experts on 0 devices"));
}

PlacementProblem RandomProblem(std::mt19937& random) {
  PlacementProblem problem;
  const int num_groups = 1 + static_cast<int>(random() % 4);
  const int num_experts = num_groups * (1 + static_cast<int>(random() % 6));
  const int num_devices = 1 + static_cast<int>(random() % 9);
  for (int e = 0; e < num_experts; ++e) {
    problem.loads.push_back(random() % 4 == 0 ? 0 : static_cast<double>(random() % 1000));
  }
  int num_slots = 0;
  for (int d = 0; d < num_devices; ++d) {
    problem.throughput.push_back(random() % 2 == 0 ? 1 : 0.25 * (1 + random() % 8));
    problem.slots.push_back(static_cast<int32_t>(random() % (num_experts + 3)));
    num_slots += std::min(problem.slots[d], num_experts);
    if (num_groups > 1) problem.nodes.push_back(static_cast<int32_t>(random() % 3));
  }
  problem.num_groups = num_groups;
  if (num_slots > num_experts) {  // often all that fit, where packing needs most care
    problem.num_replicas = random() % 2 == 0
                               ? num_slots - num_experts
                               : static_cast<int>(random() % (num_slots - num_experts + 1));
  }
  return problem;
}

TEST(EplbPlacementTest, EveryExpertIsPlacedAndNoDeviceIsOverfull) {
  std::mt19937 random(7);
  int num_placed = 0;
  for (int i = 0; i < 4000; ++i) {
    SCOPED_TRACE(i);
    const PlacementProblem problem = RandomProblem(random);
    const auto placement = EplbPlacement(problem);
    const auto num_experts = static_cast<int>(problem.loads.size());
    const int num_slots = std::accumulate(problem.slots.begin(), problem.slots.end(), 0);
    if (!placement.ok()) {
      // Nodes that keep groups whole may have less room for copies than all devices together.
      EXPECT_TRUE(num_slots < num_experts || problem.num_groups > 1) << placement.status();
      continue;
    }
    ++num_placed;
    EXPECT_EQ(placement->num_copies(), num_experts + problem.num_replicas);
    for (int e = 0; e < num_experts; ++e) {
      const auto devices = placement->devices_of(e);
      ASSERT_FALSE(devices.empty());
      EXPECT_TRUE(std::is_sorted(devices.begin(), devices.end(), std::less_equal<>()));
    }
    const auto experts = ExpertsByDevice(*placement);
    for (size_t d = 0; d < experts.size(); ++d) {
      EXPECT_THAT(static_cast<int32_t>(experts[d].size()), Le(problem.slots[d]));
    }
    EXPECT_EQ(EplbPlacement(problem)->copy_devices, placement->copy_devices);
  }
  EXPECT_GT(num_placed, 2000);
}

}  // namespace
}  // namespace gatehouse
