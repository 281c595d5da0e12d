// What one sequence of 4,096 tokens costs the pool: 256 blocks taken and given back.
#include <benchmark/benchmark.h>

#include <vector>

#include "engine/cache/block_pool.h"

namespace gatehouse {
namespace {

void BM_TakeAndReleaseASequence(benchmark::State& state) {
  const auto num_blocks = static_cast<int32_t>(state.range(0));
  BlockPool pool(65536);
  std::vector<int32_t> block_ids(num_blocks);
  for (auto _ : state) {
    for (int32_t& block_id : block_ids) block_id = pool.Take();
    for (const int32_t block_id : block_ids) pool.Release(block_id);
    benchmark::DoNotOptimize(pool.num_free());
  }
  state.SetItemsProcessed(state.iterations() * num_blocks);
}
BENCHMARK(BM_TakeAndReleaseASequence)->Arg(256);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
