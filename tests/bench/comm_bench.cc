// Exchanges between ranks that are threads, every byte read and written: the even all-to-all of a
// decode step (each rank's rows split over all ranks), and the gather of what rows chose.
// usage: comm_bench [--benchmark_filter=AllToAll]
#include <benchmark/benchmark.h>

#include <chrono>
#include <thread>
#include <vector>

#include "engine/comm/in_process.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

constexpr Duration kDeadline = std::chrono::minutes(1);

// Runs `body(comm)` on all ranks, the first of which is timed; it says when all are done.
template <typename Body>
void OnRanks(benchmark::State& state, int num_ranks, const Body& body) {
  InProcessGroup group({.membership = AllRanks(num_ranks), .deadline = kDeadline});
  std::vector<std::thread> others;
  for (int r = 1; r < num_ranks; ++r) {
    others.emplace_back([&, r] {
      while (body(group.rank(r))) {
      }
    });
  }
  for (auto _ : state) GATEHOUSE_CHECK(body(group.rank(0)));
  group.rank(0).Lose(0);
  for (std::thread& other : others) other.join();
}

// Args: ranks, rows of each rank, bytes of a row.
void AllToAll(benchmark::State& state) {
  const auto num_ranks = static_cast<int>(state.range(0));
  const auto num_rows = static_cast<int32_t>(state.range(1));
  const auto row_bytes = static_cast<size_t>(state.range(2));
  std::vector<int32_t> row_ids(num_rows), begin;
  for (int32_t i = 0; i < num_rows; ++i) row_ids[i] = i;
  for (int r = 0; r <= num_ranks; ++r) begin.push_back(num_rows * r / num_ranks);
  std::vector<std::vector<std::byte>> sent(num_ranks), received(num_ranks);
  for (int r = 0; r < num_ranks; ++r) {
    sent[r].resize(num_rows * row_bytes, static_cast<std::byte>(r));
    received[r].resize(num_rows * row_bytes);
  }
  OnRanks(state, num_ranks, [&](Communicator& comm) {
    return comm
        .AllToAll({.send = {sent[comm.rank()].data(), row_bytes, row_bytes},
                   .row_ids = row_ids,
                   .send_begin = begin,
                   .receive = {received[comm.rank()].data(), row_bytes, row_bytes},
                   .receive_begin = begin})
        .ok();
  });
  state.SetBytesProcessed(state.iterations() * num_ranks * num_rows *
                          static_cast<int64_t>(row_bytes));
}

// Args: ranks, bytes of each rank.
void AllGather(benchmark::State& state) {
  const auto num_ranks = static_cast<int>(state.range(0));
  const int64_t num_bytes = state.range(1);
  std::vector<int64_t> begin;
  for (int r = 0; r <= num_ranks; ++r) begin.push_back(r * num_bytes);
  std::vector<std::vector<std::byte>> sent(num_ranks, std::vector<std::byte>(num_bytes));
  std::vector<std::vector<std::byte>> received(num_ranks,
                                               std::vector<std::byte>(num_ranks * num_bytes));
  OnRanks(state, num_ranks, [&](Communicator& comm) {
    return comm
        .AllGather(
            {.send = sent[comm.rank()], .receive = received[comm.rank()], .receive_begin = begin})
        .ok();
  });
}

BENCHMARK(AllToAll)
    ->ArgNames({"ranks", "rows", "row_bytes"})
    ->Args({2, 64, 4096})
    ->Args({4, 64, 4096})  // 64 tokens x 2048 bf16
    ->Args({4, 512, 4096})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(AllGather)
    ->ArgNames({"ranks", "bytes"})
    ->Args({2, 4608})
    ->Args({4, 4608})  // 64 tokens, top-8
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
