#include "engine/moe/placement_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

PlacementProblem AlikeDevices(int num_experts, int num_devices) {
  PlacementProblem problem;
  problem.loads.assign(num_experts, 1);
  problem.throughput.assign(num_devices, 1);
  problem.slots.assign(num_devices, num_experts);
  return problem;
}

TEST(MovesBetweenTest, SaysWhatToCopyAndToDrop) {
  const ExpertPlacement from = PlacementOf({{0, 1}, {1}, {2}}, {1, 1, 1});
  const ExpertPlacement to = PlacementOf({{1, 2}, {0, 1, 2}, {2}}, {1, 1, 1});
  const PlacementChange change = MovesBetween(from, to);
  // Device 0 has sent expert 0; of expert 1 there is device 1 alone.
  EXPECT_THAT(change.copies,
              ElementsAre(ExpertMove{0, 0, 2}, ExpertMove{1, 1, 0}, ExpertMove{1, 1, 2}));
  EXPECT_THAT(change.drops, ElementsAre(ExpertDrop{0, 0}));
  EXPECT_TRUE(MovesBetween(to, to).empty());
}

TEST(MovesBetweenTest, HoldersTakeTurnsInSending) {
  const ExpertPlacement from = PlacementOf({{0, 1}}, {1, 1, 1, 1});
  const ExpertPlacement to = PlacementOf({{0, 1, 2, 3}}, {1, 1, 1, 1});
  EXPECT_THAT(MovesBetween(from, to).copies, ElementsAre(ExpertMove{0, 0, 2}, ExpertMove{0, 1, 3}));
}

ExpertPlacement RandomPlacement(int num_experts, int num_devices, std::mt19937& random) {
  std::vector<std::vector<int32_t>> devices(num_experts);
  for (std::vector<int32_t>& copies : devices) {
    for (int32_t d = 0; d < num_devices; ++d) {
      if (random() % 4 == 0) copies.push_back(d);
    }
    if (copies.empty()) copies.push_back(static_cast<int32_t>(random() % num_devices));
  }
  return PlacementOf(devices, std::vector<double>(num_devices, 1));
}

// Carried out on sets, and never without a copy: that is all that a change promises.
TEST(MovesBetweenTest, CarriedOutItGivesTheNewPlacement) {
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    SCOPED_TRACE(i);
    const int num_experts = 1 + static_cast<int>(random() % 9);
    const int num_devices = 1 + static_cast<int>(random() % 6);
    const ExpertPlacement from = RandomPlacement(num_experts, num_devices, random);
    const ExpertPlacement to = RandomPlacement(num_experts, num_devices, random);
    std::vector<std::vector<int32_t>> held(num_experts);
    for (int e = 0; e < num_experts; ++e) {
      held[e].assign(from.devices_of(e).begin(), from.devices_of(e).end());
    }
    const PlacementChange change = MovesBetween(from, to);
    for (const ExpertMove& move : change.copies) {
      const auto senders = from.devices_of(move.expert);
      EXPECT_EQ(std::count(senders.begin(), senders.end(), move.from_device), 1);
      EXPECT_EQ(std::count(held[move.expert].begin(), held[move.expert].end(), move.to_device), 0);
      held[move.expert].push_back(move.to_device);
    }
    for (const ExpertDrop& drop : change.drops) {
      EXPECT_EQ(std::erase(held[drop.expert], drop.device), 1);
    }
    for (std::vector<int32_t>& devices : held) std::sort(devices.begin(), devices.end());
    EXPECT_EQ(PlacementOf(held, to.throughput).copy_devices, to.copy_devices);
  }
}

TEST(KeepInPlaceTest, UndoesARenumbering) {
  const ExpertPlacement current = PlacementOf({{0}, {0, 1}, {1}, {2}}, {1, 1, 1});
  const ExpertPlacement next = PlacementOf({{2}, {0, 2}, {0}, {1}}, {1, 1, 1});
  const ExpertPlacement kept = KeepInPlace(AlikeDevices(4, 3), current, next);
  EXPECT_EQ(kept.copy_devices, current.copy_devices);
  EXPECT_TRUE(MovesBetween(current, kept).empty());
}

// The same renumbering, but device 2 is another kind or stands elsewhere: then it stays.
TEST(KeepInPlaceTest, OnlyDevicesThatAreAlikeChangePlaces) {
  const ExpertPlacement current = PlacementOf({{0}, {1}, {2}}, {1, 1, 1});
  const ExpertPlacement next = PlacementOf({{2}, {0}, {1}}, {1, 1, 1});
  PlacementProblem problem = AlikeDevices(3, 3);
  EXPECT_THAT(KeepInPlace(problem, current, next).copy_devices, ElementsAre(0, 1, 2));
  const auto device_of_expert_0 = [&] {
    return KeepInPlace(problem, current, next).devices_of(0).front();
  };
  problem.throughput[2] = 2;
  EXPECT_EQ(device_of_expert_0(), 2);
  problem = AlikeDevices(3, 3);
  problem.slots[2] = 1;
  EXPECT_EQ(device_of_expert_0(), 2);
  problem = AlikeDevices(3, 3);
  problem.nodes = {0, 0, 1};
  EXPECT_EQ(device_of_expert_0(), 2);
}

TEST(KeepInPlaceTest, NeverCopiesMoreAndChangesNoDevicesLoad) {
  std::mt19937 random(6);
  for (int i = 0; i < 500; ++i) {
    SCOPED_TRACE(i);
    const int num_experts = 1 + static_cast<int>(random() % 9);
    const int num_devices = 1 + static_cast<int>(random() % 6);
    const ExpertPlacement current = RandomPlacement(num_experts, num_devices, random);
    const ExpertPlacement next = RandomPlacement(num_experts, num_devices, random);
    PlacementProblem problem = AlikeDevices(num_experts, num_devices);
    for (double& load : problem.loads) load = random() % 10;
    const ExpertPlacement kept = KeepInPlace(problem, current, next);
    EXPECT_DOUBLE_EQ(PredictedImbalance(kept, problem.loads),
                     PredictedImbalance(next, problem.loads));
    EXPECT_EQ(kept.copy_begin, next.copy_begin);
    EXPECT_THAT(MovesBetween(next, KeepInPlace(problem, next, kept)).copies, IsEmpty());
  }
}

}  // namespace
}  // namespace gatehouse
