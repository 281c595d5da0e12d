// Attention and sampling of one layer and one step, best instruction set.
//   flops     4 * head_dim of each (query head, key) pair that the mask lets through
//   kv_bytes  keys and values of the contexts, each read once
//   logits    one pass over the row of logits counts 4 bytes a token
#include <benchmark/benchmark.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {
namespace {

constexpr int kNumHeads = 16, kNumKvHeads = 8, kHeadDim = 64, kBlockTokens = 16;

std::vector<float> RandomFloats(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::unique_ptr<Backend> MakeCpu(int64_t num_threads) {
  return *MakeBackend("cpu", {.num_threads = static_cast<int>(num_threads)});
}

struct AttentionCase {
  int num_sequences;
  int num_rows;        // of each
  int first_position;  // tokens in the cache before
};

void RunAttention(benchmark::State& state, const AttentionCase& c) {
  const std::unique_ptr<Backend> backend = MakeCpu(state.range(0));
  const KvShape shape{kNumKvHeads, kHeadDim, kBlockTokens};
  const int num_keys = c.first_position + c.num_rows;
  const int blocks_each = (num_keys + kBlockTokens - 1) / kBlockTokens;
  const int64_t num_blocks = int64_t{blocks_each} * c.num_sequences;
  Buffer cache = *backend->Allocate(num_blocks * backend->KvBlockBytes(shape));
  const std::vector<float> noise = RandomFloats(static_cast<int64_t>(cache.num_bytes() / 4));
  backend->CopyFromHost(cache.as<void>(), noise.data(), cache.num_bytes());

  const int64_t num_rows = int64_t{c.num_sequences} * c.num_rows, width = kNumHeads * kHeadDim;
  std::vector<int32_t> block_ids(num_blocks), token_ids(num_rows), positions;
  std::vector<SequenceSpan> spans;
  for (int64_t b = 0; b < num_blocks; ++b) block_ids[b] = static_cast<int32_t>(num_blocks - 1 - b);
  for (int s = 0; s < c.num_sequences; ++s) {
    spans.push_back({.first_row = s * c.num_rows,
                     .num_rows = c.num_rows,
                     .first_position = c.first_position,
                     .block_ids = std::span(block_ids).subspan(s * blocks_each, blocks_each)});
    for (int r = 0; r < c.num_rows; ++r) positions.push_back(c.first_position + r);
  }
  std::vector<float> q = RandomFloats(num_rows * width), out(num_rows * width);
  backend->BeginStep({token_ids, positions, spans});
  for (auto _ : state) {
    backend->Attention({.q = MatrixView<float>(q.data(), num_rows, width),
                        .num_heads = kNumHeads,
                        .scale = 0.125f,
                        .kv = {cache.as<void>(), num_blocks, shape},
                        .out = {out.data(), num_rows, width}});
    benchmark::DoNotOptimize(out.data());
  }
  double pairs = 0;
  for (const int32_t position : positions) pairs += double{kNumHeads} * (position + 1);
  const double bytes = 2.0 * 4 * num_keys * c.num_sequences * kNumKvHeads * kHeadDim;
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["flops"] = benchmark::Counter(4.0 * kHeadDim * pairs, rate);
  state.counters["kv_bytes"] = benchmark::Counter(bytes, rate);
}

void BM_Prefill512(benchmark::State& state) { RunAttention(state, {1, 512, 0}); }
void BM_Prefill64After448(benchmark::State& state) { RunAttention(state, {1, 64, 448}); }
void BM_Decode160(benchmark::State& state) { RunAttention(state, {1, 1, 159}); }
void BM_Decode160Batch32(benchmark::State& state) { RunAttention(state, {32, 1, 159}); }
void BM_Decode4096(benchmark::State& state) { RunAttention(state, {1, 1, 4095}); }
void BM_Decode4096Batch32(benchmark::State& state) { RunAttention(state, {32, 1, 4095}); }
BENCHMARK(BM_Prefill512)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(BM_Prefill64After448)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(BM_Decode160)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(BM_Decode160Batch32)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(BM_Decode4096)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(BM_Decode4096Batch32)->Arg(1)->Arg(2)->UseRealTime();

// Logits with a standard deviation of 3, as models have; some thousand tokens have a mass.
void RunSample(benchmark::State& state, const RowSampling& row) {
  const std::unique_ptr<Backend> backend = MakeCpu(1);
  const int64_t vocab = state.range(0);
  std::vector<float> logits = RandomFloats(vocab);
  for (float& z : logits) z *= 3;
  RowSampling drawn = row;
  RowSample sample;
  for (auto _ : state) {
    drawn.uniform = std::fmod(drawn.uniform + 0.6180339887, 1.0);
    backend->Sample({.logits = MatrixView<float>(logits.data(), 1, vocab),
                     .rows = {&drawn, 1},
                     .samples = {&sample, 1}});
    benchmark::DoNotOptimize(sample.token_id);
  }
  state.counters["logits"] = benchmark::Counter(4.0 * static_cast<double>(vocab),
                                                benchmark::Counter::kIsIterationInvariantRate);
}

void BM_Greedy(benchmark::State& state) { RunSample(state, {}); }
void BM_GreedyLogprobs(benchmark::State& state) { RunSample(state, {.num_top_logprobs = 5}); }
void BM_Temperature(benchmark::State& state) { RunSample(state, {.temperature = 0.8f}); }
void BM_TopKTopP(benchmark::State& state) {
  RunSample(state, {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f});
}
void BM_TopP(benchmark::State& state) { RunSample(state, {.temperature = 0.8f, .top_p = 0.95f}); }
BENCHMARK(BM_Greedy)->Arg(49152)->Arg(151936);
BENCHMARK(BM_GreedyLogprobs)->Arg(49152)->Arg(151936);
BENCHMARK(BM_Temperature)->Arg(49152)->Arg(151936);
BENCHMARK(BM_TopKTopP)->Arg(49152)->Arg(151936);
BENCHMARK(BM_TopP)->Arg(49152)->Arg(151936);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
