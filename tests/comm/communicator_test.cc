// What every communicator promises.
#include "engine/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "tests/comm/rank_harness.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CommunicatorTest : public ::testing::TestWithParam<Engine> {};
INSTANTIATE_TEST_SUITE_P(Engines, CommunicatorTest, ::testing::ValuesIn(EnginesToTest()),
                         [](const auto& info) {
                           return info.param == Engine::kGloo ? "Gloo" : "InProcess";
                         });

constexpr Duration kLong = std::chrono::seconds(60), kShort = std::chrono::milliseconds(500);

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
      const std::byte stamp = Stamp(from, comm.rank(), round);
      ASSERT_TRUE(std::all_of(part.begin(), part.end(), [&](auto byte) { return byte == stamp; }))
          << "round " << round << ": not only rank " << from << "'s";
    }
  }
};

TEST_P(CommunicatorTest, EveryByteComesFromWhomItShould) {
  for (const int num_ranks : {1, 2, 3, 8}) {
    RankGroup group(GetParam(), AllRanks(num_ranks), kLong);
    const Exchange even{num_ranks, 64, [](int, int) { return 5; }};
    const Exchange skewed{num_ranks, 24, [](int from, int to) { return from == 0 ? 9 * to : 0; }};
    const Exchange empty{num_ranks, 8, [](int, int) { return 0; }};
    group.Run([&](Communicator& comm) {
      for (int round = 0; round < 50; ++round) {
        even.Run(comm, round);
        skewed.Run(comm, round);
        empty.Run(comm, round);
      }
    });
  }
}

TEST_P(CommunicatorTest, RowsStandAtAnyDistanceAndInAnyOrder) {
  RankGroup group(GetParam(), AllRanks(2), kLong);
  group.Run([](Communicator& comm) {
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

TEST_P(CommunicatorTest, GathersPartsOfDifferentLengths) {
  constexpr int kRanks = 4;
  RankGroup group(GetParam(), AllRanks(kRanks), kLong);
  group.Run([](Communicator& comm) {
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

TEST_P(CommunicatorTest, CountsWhatGoesToOthersOnly) {
  RankGroup group(GetParam(), AllRanks(2), kLong);
  const Exchange exchange{2, 16, [](int from, int to) { return from == to ? 10 : 1 + from; }};
  group.Run([&](Communicator& comm) { exchange.Run(comm, 0); });
  EXPECT_EQ(group.rank(0).stats().bytes_sent, 16);
  EXPECT_EQ(group.rank(0).stats().bytes_received, 32);
  EXPECT_EQ(group.rank(1).stats().bytes_sent, 32);
  EXPECT_EQ(group.rank(1).stats().bytes_received, 16);
  EXPECT_GT(group.rank(0).stats().wait_seconds + group.rank(1).stats().wait_seconds, 0);
}

TEST_P(CommunicatorTest, ARankThatDoesNotComeIsNamedByAll) {
  RankGroup group(GetParam(), AllRanks(3, 5), kShort);
  group.Run([](Communicator& comm) {
    if (comm.rank() == 1) return;
    for (int i = 0; i < 2; ++i) {  // and it stays so
      const absl::Status status = comm.Barrier();
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      EXPECT_THAT(status.message(), HasSubstr("rank 1 lost in epoch 5"));
    }
  });
  EXPECT_FALSE(group.rank(1).Barrier().ok()) << "who comes late finds nobody";
}

TEST_P(CommunicatorTest, ALossWakesThoseWhoWait) {
  RankGroup group(GetParam(), AllRanks(3, 2), kLong);
  group.Run([&](Communicator& comm) {
    if (comm.rank() == 2) {
      group.Lose(2);
      group.Lose(0);  // the first counts
      return;
    }
    EXPECT_EQ(comm.Barrier().message(), "rank 2 lost in epoch 2");
  });
}

// Whatever was posted and is freed when a call fails, nobody reads any more: AddressSanitizer's.
TEST_P(CommunicatorTest, RanksThatAreLostAmidMovesLeaveNothingBehind) {
  const int num_groups = GetParam() == Engine::kGloo ? 8 : 50;
  for (int round = 0; round < num_groups; ++round) {
    RankGroup group(GetParam(), AllRanks(4), kLong);
    group.Run([&](Communicator& comm) {
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
      group.Lose(3);
    });
  }
}

// Ranks keep their numbers; the one that is lost sends nothing and nothing is sent to it.
TEST_P(CommunicatorTest, MembersMeetWithoutTheLost) {
  RankGroup group(GetParam(), {.epoch = 1, .num_ranks = 4, .members = {0, 2, 3}}, kLong);
  const Exchange exchange{4, 12, [](int from, int to) { return from == 1 || to == 1 ? 0 : 3; }};
  group.Run([&](Communicator& comm) {
    EXPECT_EQ(comm.size(), 4);
    const auto own = static_cast<std::byte>(comm.rank());
    std::vector<std::byte> all(3);
    const std::vector<int64_t> begin = {0, 1, 1, 2, 3};
    for (int round = 0; round < 20; ++round) {
      exchange.Run(comm, round);
      ASSERT_TRUE(comm.Barrier().ok());
      ASSERT_TRUE(comm.AllGather({.send = {&own, 1}, .receive = all, .receive_begin = begin}).ok());
      ASSERT_THAT(all, ElementsAre(std::byte{0}, std::byte{2}, std::byte{3}));
    }
    EXPECT_EQ(comm.stats().bytes_sent,
              20 * (2 * 3 * 12 + 2) + (GetParam() == Engine::kGloo ? 40 : 0))
        << "gloo's barrier sends a byte";
  });
}

TEST_P(CommunicatorTest, TheOnlyMemberWaitsForNobody) {
  RankGroup group(GetParam(), {.epoch = 7, .num_ranks = 3, .members = {1}}, kLong);
  const Exchange exchange{3, 8, [](int from, int to) { return from == 1 && to == 1 ? 5 : 0; }};
  group.Run([&](Communicator& comm) {
    exchange.Run(comm, 0);
    EXPECT_TRUE(comm.Barrier().ok());
    EXPECT_EQ(comm.stats().bytes_sent, 0);
  });
}

TEST_P(CommunicatorTest, ThousandsOfSmallRoundsAndFewLargeOnes) {
  RankGroup group(GetParam(), AllRanks(4), kLong);
  const auto rounds = [&](Communicator& comm, int num_rounds, int bytes_a_rank) {
    const Exchange exchange{4, 1024, [&](int, int) { return bytes_a_rank / 1024; }};
    for (int round = 0; round < num_rounds; ++round) exchange.Run(comm, round);
  };
  group.Run([&](Communicator& comm) {
    rounds(comm, GetParam() == Engine::kGloo ? 1000 : 5000, 1024);
    rounds(comm, 10, 256 << 10);
    rounds(comm, 1, 4 << 20);
  });
}

TEST_P(CommunicatorTest, WhoEndsAmidACallIsNamed) {
  RankGroup group(GetParam(), AllRanks(3, 4), kLong);
  std::atomic<int> num_waiting = 0;
  group.Run([&](Communicator& comm) {
    EXPECT_TRUE(comm.Barrier().ok());
    if (comm.rank() == 0) {
      while (num_waiting.load() < 2) std::this_thread::yield();
      group.End(0);
      return;
    }
    ++num_waiting;
    std::vector<std::byte> all(3 << 20), own(1 << 20);
    const std::vector<int64_t> begin = {0, 1 << 20, 2 << 20, 3 << 20};
    EXPECT_EQ(comm.AllGather({.send = own, .receive = all, .receive_begin = begin}).message(),
              "rank 0 lost in epoch 4");
  });
}

}  // namespace
}  // namespace gatehouse
