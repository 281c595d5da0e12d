// Our exchanges between processes beside gloo's own all-to-all in the same run: ranks are threads
// here, but all they share is TCP over loopback. Every byte is read and written.
// usage: gloo_bench
#include <benchmark/benchmark.h>
#include <gloo/alltoallv.h>
#include <gloo/rendezvous/context.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "engine/comm/gloo_communicator.h"
#include "engine/comm/key_board.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

constexpr int32_t kRowBytes = 4096;  // 2048 bf16
using Exchange = std::function<bool()>;

// `make(rank, store)` connects one rank and returns its exchange. The first is timed; the others
// follow until it goes.
void OnRanks(benchmark::State& state,
             const std::function<Exchange(int, gloo::rendezvous::Store&)>& make) {
  const auto num_ranks = static_cast<int>(state.range(0));
  KeyBoard board([](const BoardKey&) {});
  std::vector<std::thread> others;
  for (int r = 1; r < num_ranks; ++r) {
    others.emplace_back([&, r] {
      const Exchange exchange = make(r, *board.StoreOf(0));
      while (exchange()) {
      }
    });
  }
  {
    const Exchange exchange = make(0, *board.StoreOf(0));
    for (auto _ : state) GATEHOUSE_CHECK(exchange());
  }  // its connections break
  for (std::thread& other : others) other.join();
}

// Args: ranks, rows of each rank.
void GlooAllToAll(benchmark::State& state) {
  const auto num_ranks = static_cast<int>(state.range(0));
  const auto num_rows = static_cast<int32_t>(state.range(1));
  std::vector<int32_t> row_ids(num_rows), begin;
  for (int32_t i = 0; i < num_rows; ++i) row_ids[i] = i;
  for (int r = 0; r <= num_ranks; ++r) begin.push_back(num_rows * r / num_ranks);
  OnRanks(state, [&](int rank, gloo::rendezvous::Store& store) -> Exchange {
    auto connected = ConnectGloo({.membership = AllRanks(num_ranks),
                                  .rank = rank,
                                  .deadline = std::chrono::minutes(1),
                                  .connect_deadline = std::chrono::minutes(1),
                                  .address = "127.0.0.1"},
                                 store);
    GATEHOUSE_CHECK(connected.ok()) << connected.status().ToString();
    const std::shared_ptr<Communicator> comm = *std::move(connected);
    std::vector<std::byte> sent(num_rows * kRowBytes), received(sent.size());
    return [=, &row_ids, &begin]() mutable {
      return comm
          ->AllToAll({.send = {sent.data(), kRowBytes, kRowBytes},
                      .row_ids = row_ids,
                      .send_begin = begin,
                      .receive = {received.data(), kRowBytes, kRowBytes},
                      .receive_begin = begin})
          .ok();
    };
  });
}

void RawGlooAllToAll(benchmark::State& state) {
  const auto num_ranks = static_cast<int>(state.range(0));
  const int64_t num_bytes = state.range(1) * kRowBytes;
  OnRanks(state, [&](int rank, gloo::rendezvous::Store& store) -> Exchange {
    auto device = gloo::transport::tcp::CreateDevice("127.0.0.1");
    auto context = std::make_shared<gloo::rendezvous::Context>(rank, num_ranks);
    context->connectFullMesh(store, device);
    std::vector<char> sent(num_bytes), received(sent.size());
    return [=]() mutable {
      gloo::AlltoallvOptions options(context);
      const std::vector<int64_t> counts(num_ranks, num_bytes / num_ranks);
      options.setInput(sent.data(), counts);
      options.setOutput(received.data(), counts);
      try {
        gloo::alltoallv(options);
      } catch (const std::exception&) {
        return false;
      }
      return true;
    };
  });
}

void Sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"ranks", "rows"})
      ->Args({2, 64})
      ->Args({4, 64})
      ->Args({4, 512})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
BENCHMARK(GlooAllToAll)->Apply(Sizes);
BENCHMARK(RawGlooAllToAll)->Apply(Sizes);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
