#include "engine/comm/in_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <numeric>
#include <random>
#include <thread>

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr Duration kLong = std::chrono::seconds(60), kShort = std::chrono::milliseconds(50);

// Each rank on a thread of its own.
void RunOnRanks(InProcessGroup& group, int num_ranks,
                const std::function<void(Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (int r = 0; r < num_ranks; ++r) threads.emplace_back([&, r] { body(group.rank(r)); });
  for (std::thread& thread : threads) thread.join();
}

// Rows of `row_bytes` that say of each byte who sent it, to whom, in which round.
struct Exchange {
  int num_ranks = 0;
  size_t row_bytes = 0;
  std::function<int(int from, int to)> num_rows;

  std::byte Stamp(int from, int to, int round) const {
    return static_cast<std::byte>(from * 50 + to * 7 + round);
  }
  void Run(Communicator& comm, int round) const {
    std::vector<int32_t> row_ids, send_begin{0}, receive_begin{0};
    std::vector<std::byte> sent;
    for (int to = 0; to < num_ranks; ++to) {
      // Sent in falling order, so that the ids matter; all rows for one rank are alike.
      const int count = num_rows(comm.rank(), to);
      const auto first = static_cast<int32_t>(row_ids.size());
      for (int i = count - 1; i >= 0; --i) row_ids.push_back(first + i);
      sent.insert(sent.end(), count * row_bytes, Stamp(comm.rank(), to, round));
      send_begin.push_back(first + count);
      receive_begin.push_back(receive_begin.back() + num_rows(to, comm.rank()));
    }
    std::vector<std::byte> received(receive_begin.back() * row_bytes, std::byte{255});
    ASSERT_TRUE(comm.AllToAll({.send = {sent.data(), row_bytes, row_bytes},
                               .row_ids = row_ids,
                               .send_begin = send_begin,
                               .receive = {received.data(), row_bytes, row_bytes},
                               .receive_begin = receive_begin})
                    .ok());
    std::fill(sent.begin(), sent.end(), std::byte{254});  // ours again: nobody may still read it
    for (int from = 0; from < num_ranks; ++from) {
      const auto part =
          std::span(received).subspan(receive_begin[from] * row_bytes,
                                      (receive_begin[from + 1] - receive_begin[from]) * row_bytes);
      ASSERT_THAT(std::vector(part.begin(), part.end()), Each(Stamp(from, comm.rank(), round)));
    }
  }
};

TEST(InProcessGroupTest, EveryByteComesFromWhomItShould) {
  for (const int num_ranks : {1, 2, 3, 8}) {
    InProcessGroup group({.membership = AllRanks(num_ranks), .deadline = kLong});
    const Exchange even{num_ranks, 64, [](int, int) { return 5; }};
    const Exchange skewed{num_ranks, 24, [](int from, int to) { return from == 0 ? 9 * to : 0; }};
    const Exchange empty{num_ranks, 8, [](int, int) { return 0; }};
    RunOnRanks(group, num_ranks, [&](Communicator& comm) {
      for (int round = 0; round < 50; ++round) {
        even.Run(comm, round);
        skewed.Run(comm, round);
        empty.Run(comm, round);
      }
    });
  }
}

TEST(InProcessGroupTest, RowsStandAtAnyDistanceAndInAnyOrder) {
  InProcessGroup group({.membership = AllRanks(2), .deadline = kLong});
  RunOnRanks(group, 2, [](Communicator& comm) {
    std::vector<int16_t> rows(4 * 3);
    std::iota(rows.begin(), rows.end(), static_cast<int16_t>(100 * comm.rank()));
    const std::vector<int32_t> row_ids = {3, 0, 3}, send_begin = {0, 1, 3};
    const std::vector<int32_t> receive_begin =
        comm.rank() == 0 ? std::vector<int32_t>{0, 1, 2} : std::vector<int32_t>{0, 2, 4};
    std::vector<int16_t> received(4 * receive_begin.back(), -1);
    ASSERT_TRUE(comm.AllToAll({.send = {reinterpret_cast<std::byte*>(rows.data()), 4, 6},
                               .row_ids = row_ids,
                               .send_begin = send_begin,
                               .receive = {reinterpret_cast<std::byte*>(received.data()), 4, 8},
                               .receive_begin = receive_begin})
                    .ok());
    const std::vector<int16_t> at_0 = {9, 10, -1, -1, 109, 110, -1, -1};
    const std::vector<int16_t> at_1 = {0,   1,   -1, -1, 9,   10,  -1, -1,
                                       100, 101, -1, -1, 109, 110, -1, -1};
    EXPECT_EQ(received, comm.rank() == 0 ? at_0 : at_1);
  });
}

TEST(InProcessGroupTest, GathersPartsOfDifferentLengths) {
  constexpr int kRanks = 4;
  InProcessGroup group({.membership = AllRanks(kRanks), .deadline = kLong});
  RunOnRanks(group, kRanks, [](Communicator& comm) {
    for (int round = 0; round < 100; ++round) {
      std::vector<int64_t> begin{0};
      std::vector<std::byte> expected;
      for (int r = 0; r < kRanks; ++r) {
        begin.push_back(begin.back() + r * 3);
        expected.insert(expected.end(), r * 3, static_cast<std::byte>(r + round));
      }
      const std::vector<std::byte> own(comm.rank() * 3,
                                       static_cast<std::byte>(comm.rank() + round));
      std::vector<std::byte> received(begin.back());
      ASSERT_TRUE(comm.AllGather({.send = own, .receive = received, .receive_begin = begin}).ok());
      ASSERT_EQ(received, expected);
    }
  });
}

TEST(InProcessGroupTest, CountsWhatGoesToOthersOnly) {
  InProcessGroup group({.membership = AllRanks(2), .deadline = kLong});
  const Exchange exchange{2, 16, [](int from, int to) { return from == to ? 10 : 1 + from; }};
  RunOnRanks(group, 2, [&](Communicator& comm) { exchange.Run(comm, 0); });
  EXPECT_EQ(group.rank(0).stats().bytes_sent, 16);
  EXPECT_EQ(group.rank(0).stats().bytes_received, 32);
  EXPECT_EQ(group.rank(1).stats().bytes_sent, 32);
  EXPECT_EQ(group.rank(1).stats().bytes_received, 16);
  EXPECT_GT(group.rank(0).stats().wait_seconds + group.rank(1).stats().wait_seconds, 0);
}

TEST(InProcessGroupTest, ARankThatDoesNotComeIsNamedByAll) {
  InProcessGroup group({.membership = AllRanks(3, 5), .deadline = kShort});
  RunOnRanks(group, 3, [](Communicator& comm) {
    if (comm.rank() == 1) return;
    for (int i = 0; i < 2; ++i) {  // and it stays so
      const absl::Status status = comm.Barrier();
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      EXPECT_THAT(status.message(), HasSubstr("rank 1 lost in epoch 5"));
    }
  });
  EXPECT_EQ(group.rank(1).Barrier().message(), "rank 1 lost in epoch 5") << "who comes late, too";
}

TEST(InProcessGroupTest, ALossWakesThoseWhoWait) {
  InProcessGroup group({.membership = AllRanks(3, 2), .deadline = kLong});
  RunOnRanks(group, 3, [&](Communicator& comm) {
    if (comm.rank() == 2) {
      comm.Lose(2);
      comm.Lose(0);  // the first counts
      return;
    }
    EXPECT_EQ(comm.AllGather({.receive_begin = std::vector<int64_t>(4)}).message(),
              "rank 2 lost in epoch 2");
  });
}

// Whatever was posted and is freed when a call fails, nobody reads any more: AddressSanitizer's.
TEST(InProcessGroupTest, RanksThatAreLostAmidMovesLeaveNothingBehind) {
  for (int round = 0; round < 50; ++round) {
    InProcessGroup group({.membership = AllRanks(4), .deadline = kLong});
    RunOnRanks(group, 4, [&](Communicator& comm) {
      std::mt19937 random(round * 4 + comm.rank());
      const int last = comm.rank() == 3 ? static_cast<int>(random() % 20) : 1000;
      for (int i = 0; i < last; ++i) {
        std::vector<std::byte> own(64), received(256);
        const std::vector<int64_t> begin = {0, 64, 128, 192, 256};
        const absl::Status status =
            comm.AllGather({.send = own, .receive = received, .receive_begin = begin});
        if (status.ok()) continue;
        EXPECT_EQ(status.message(), "rank 3 lost in epoch 0");
        return;
      }
      comm.Lose(3);
    });
  }
}

// Ranks keep their numbers; the one that is lost sends nothing and nothing is sent to it.
TEST(InProcessGroupTest, MembersOfAnEpochMeetWithoutTheLost) {
  InProcessRendezvous rendezvous(kLong);
  const Membership all = AllRanks(3), two = {.epoch = 1, .num_ranks = 3, .members = {0, 2}};
  const auto stale = rendezvous.Join(all, 0);
  const std::shared_ptr<Communicator> zero = rendezvous.Join(two, 0);
  const std::shared_ptr<Communicator> other = rendezvous.Join(two, 2);
  stale->Lose(1);  // of another epoch
  const std::vector<int64_t> begin = {0, 4, 4, 8};
  const auto gather = [&](Communicator& comm) {
    const int32_t own = 10 + comm.rank();
    std::vector<int32_t> all_of_them(2);
    EXPECT_EQ(comm.size(), 3);
    EXPECT_TRUE(comm.AllGather({.send = std::as_bytes(std::span(&own, 1)),
                                .receive = std::as_writable_bytes(std::span(all_of_them)),
                                .receive_begin = begin})
                    .ok());
    EXPECT_THAT(all_of_them, testing::ElementsAre(10, 12));
    EXPECT_EQ(comm.stats().bytes_sent, 4);
    EXPECT_EQ(comm.stats().bytes_received, 4);
  };
  std::thread thread([&] { gather(*other); });
  gather(*zero);
  thread.join();
}

}  // namespace
}  // namespace gatehouse
