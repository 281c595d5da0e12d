#include "engine/comm/in_process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>

namespace gatehouse {
namespace {

// What its groups do: communicator_test.cc.
TEST(InProcessRendezvousTest, MembersOfAnEpochMeetAndThoseOfAnotherDoNot) {
  InProcessRendezvous rendezvous(std::chrono::seconds(60));
  const Membership all = AllRanks(3), two = {.epoch = 1, .num_ranks = 3, .members = {0, 2}};
  const std::shared_ptr<Communicator> stale = rendezvous.Join(all, 0);
  const std::shared_ptr<Communicator> zero = rendezvous.Join(two, 0);
  const std::shared_ptr<Communicator> other = rendezvous.Join(two, 2);
  stale->Lose(1);
  EXPECT_EQ(stale->Barrier().message(), "rank 1 lost in epoch 0");
  std::thread thread([&] { EXPECT_TRUE(other->Barrier().ok()); });
  EXPECT_TRUE(zero->Barrier().ok());
  thread.join();
}

}  // namespace
}  // namespace gatehouse
